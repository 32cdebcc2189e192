/*
 * holder PORT: takes PORT of 127.0.0.1, dirties 64 MiB, and listens until it is killed.
 *
 * It binds first and without SO_REUSEADDR: who is started while its predecessor still gives back its memory, and so holds
 * the port, says so and ends with 98.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BYTES (64UL << 20)
#define PAGE_BYTES 4096

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((unsigned short)atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (sock < 0) return 3;
    if (bind(sock, (struct sockaddr *)&address, sizeof address) != 0) {
        perror("bind failed");
        return 98;
    }

    char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 4;
    for (unsigned long at = 0; at < BYTES; at += PAGE_BYTES) memory[at] = 1;

    /* Last, so that whoever sees it listen knows that the memory is dirty. */
    if (listen(sock, 1) != 0) return 5;
    puts("listening");
    fflush(stdout);
    for (;;) pause();
}
