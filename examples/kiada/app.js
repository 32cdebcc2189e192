// A small application in the role of kiada: says who it is on port 8080, and leaves politely on SIGTERM.

const http = require("node:http");
const os = require("node:os");

const PORT = 8080;
const VERSION = "0.1";

const server = http.createServer((request, response) => {
  console.log(`${request.method} ${request.url} from ${request.socket.remoteAddress}`);
  response.writeHead(200, { "Content-Type": "text/plain" });
  response.end(`Kiada version ${VERSION}. Request processed by "${os.hostname()}".\n`);
});

server.on("error", (error) => {
  console.error(`cannot serve port ${PORT}: ${error.message}`);
  process.exit(1);
});

server.listen(PORT, () => console.log(`Kiada version ${VERSION} listens on port ${PORT}`));

process.on("SIGTERM", () => {
  console.log("SIGTERM: no new connections, then the end");
  server.close(() => process.exit(0));
  server.closeAllConnections();
});
