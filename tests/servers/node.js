// Node's own HTTP server on 8080 and 8443: requests go to access.log, whatever goes wrong with a client to stderr.
'use strict';
const fs = require('fs');
const http = require('http');
const https = require('https');

const access = fs.openSync('access.log', 'a');
const answer = (request, response) => {
  fs.writeSync(access, `${request.method} ${request.url} "${request.headers['user-agent']}"\n`);
  response.end('ok\n');
};
const tell = (what) => (error, socket) => {
  console.error(`${what}: ${error.code || error.message}`);
  if (socket) socket.destroy();
};
const tls = { key: fs.readFileSync('key.pem'), cert: fs.readFileSync('cert.pem') };
for (const [server, port] of [[http.createServer(answer), 8080], [https.createServer(tls, answer), 8443]]) {
  server.on('clientError', tell('clientError'));
  server.on('tlsClientError', tell('tlsClientError'));
  server.on('error', tell('error'));
  server.on('connection', (socket) => socket.on('error', tell('socket')));
  server.listen(port, '127.0.0.1');
}
