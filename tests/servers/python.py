"""Python's own threading HTTP server on 8080: requests go to access.log, exceptions to stderr as ever."""
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")

    def log_request(self, code="-", size="-"):
        access.write(f'{self.requestline} {code} "{self.headers["User-Agent"]}"\n')


access = open("access.log", "a", buffering=1)
ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
