/*
 * Source of small.btf, a BTF blob for the tests of src/btf/mod.rs. Made with gcc 12.2 and binutils 2.40 on x86-64:
 *
 *     gcc -gbtf -c small.c -o small.o
 *     objcopy --dump-section .BTF=small.btf small.o
 *
 * The offsets that the tests expect are those of the x86-64 ABI, checked by the compiler at the end of this file.
 */
#include <stddef.h>

typedef unsigned int u32;
typedef _Bool flag;

enum colour { RED, GREEN = 7 };
enum wide { WIDE = 0x100000000LL };

struct absent;

struct plain {
	char letter;
	u32 number;
	short row[5];
	void *pointer;
	int (*callback)(struct plain *self, const char *text, ...);
	struct absent *unknown;
	enum colour colour;
	enum wide wide;
	double fraction;
	volatile flag on;
};

struct nested {
	u32 first;
	union {
		u32 as_number;
		struct {
			char low;
			char high;
			struct {
				u32 deepest;
			};
		};
	};
	const struct {
		u32 inside_const;
	};
	struct {
		u32 hidden;
	} named;
	u32 last;
};

struct bits {
	u32 whole;
	u32 one : 1;
	u32 seven : 7;
	u32 aligned : 8;
	u32 after;
	struct {
		u32 two : 2;
		u32 behind;
	};
};

union either {
	u32 number;
	char letter;
};

typedef void (*btf_trace_small_none)(void *data);
typedef void (*btf_trace_small_two)(void *data, struct plain *plain, flag dead);
typedef u32 btf_trace_small_wrong;

struct plain a_plain;
struct nested a_nested;
struct bits a_bits;
union either an_either;
btf_trace_small_none trace_none;
btf_trace_small_two trace_two;
btf_trace_small_wrong trace_wrong;
static const char *const text = "text";

u32 use(struct plain *restrict plain, union either either)
{
	return plain->number + either.number + (u32)text[0];
}

_Static_assert(offsetof(struct plain, number) == 4 && offsetof(struct plain, row) == 8, "plain");
_Static_assert(offsetof(struct plain, pointer) == 24 && offsetof(struct plain, callback) == 32, "plain");
_Static_assert(offsetof(struct plain, unknown) == 40 && offsetof(struct plain, colour) == 48, "plain");
_Static_assert(offsetof(struct plain, wide) == 56 && offsetof(struct plain, fraction) == 64, "plain");
_Static_assert(offsetof(struct plain, on) == 72, "plain");
_Static_assert(offsetof(struct nested, as_number) == 4 && offsetof(struct nested, high) == 5, "nested");
_Static_assert(offsetof(struct nested, deepest) == 8 && offsetof(struct nested, inside_const) == 12, "nested");
_Static_assert(offsetof(struct nested, named) == 16 && offsetof(struct nested, last) == 20, "nested");
_Static_assert(sizeof(struct nested) == 24, "nested");
_Static_assert(offsetof(struct bits, after) == 8 && offsetof(struct bits, behind) == 16, "bits");
