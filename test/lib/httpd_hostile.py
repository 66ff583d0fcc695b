#!/usr/bin/env python3
"""An HTTP server that does what it should not, for tests.

httpd_hostile.py LOG NAME=HOST[,CERT,KEY[,CLIENT_CA]] ...

Listens at a free port for each NAME and prints "NAME=PORT ..." (port 0: the
address is not to be had).  Every connection and request is a line of JSON in
LOG.  What it does is the path: /rows and the functions below; /once/MODE does
it the first time only, later there are rows.  Ends with its standard input.
"""
import gzip
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.parse
import zlib

lock = threading.Lock()
seen = {}
ports = {}
ROWS = b'[{"id": 1, "name": "one"}, {"id": 2, "name": "two"}]'


class Done(Exception):
    """The connection is not to be used any more."""


def note(**what):
    with lock, open(sys.argv[1], 'a') as log:
        log.write(json.dumps(what) + '\n')


class Connection:
    def __init__(self, name, sock):
        self.name = name
        self.sock = sock
        self.buffer = b''

    # ---- reading

    def read(self, enough):
        while not enough():
            data = self.sock.recv(65536)
            if not data:
                raise Done
            self.buffer += data

    def request(self):
        self.read(lambda: b'\r\n\r\n' in self.buffer)
        head, self.buffer = self.buffer.split(b'\r\n\r\n', 1)
        lines = head.decode('latin-1').split('\r\n')
        self.method, self.target, _ = lines[0].split(' ', 2)
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(':')
            self.headers.setdefault(name.lower(), value.strip())
        length = int(self.headers.get('content-length', 0))
        self.read(lambda: len(self.buffer) >= length)
        self.body, self.buffer = self.buffer[:length], self.buffer[length:]
        note(event='request', on=self.name, method=self.method, path=self.target, headers=self.headers,
             lines=lines, body=self.body.decode('latin-1'))
        self.path, _, query = self.target.partition('?')
        self.query = dict(urllib.parse.parse_qsl(query, encoding='latin-1', keep_blank_values=True))

    # ---- writing

    def send(self, data):
        self.sock.sendall(data)

    def head(self, status=200, reason=b'Well', length=None, headers=()):
        lines = [b'HTTP/1.1 %d %s' % (status, reason)]
        lines += list(headers)
        if length is not None:
            lines.append(b'Content-Length: %d' % length)
        self.send(b'\r\n'.join(lines) + b'\r\n\r\n')

    def answer(self, body=ROWS, status=200, headers=(b'Content-Type: application/json',), reason=b'Well'):
        self.head(status, reason, len(body), headers)
        self.send(body)

    def drip(self, data, pause=0.1):
        for i in range(len(data)):
            self.send(data[i:i + 1])
            time.sleep(pause)

    def forever(self, data):
        while True:
            self.send(data)

    def chunks_forever(self, data, status=200, headers=()):
        self.head(status, headers=(b'Transfer-Encoding: chunked', *headers))
        self.forever(b'%x\r\n%s\r\n' % (len(data), data))

    # ---- what is asked for

    def serve(self):
        note(event='connect', on=self.name)
        while True:
            self.request()
            parts = self.path.strip('/').split('/')
            mode, rest = parts[0], parts[1:]
            if mode == 'once':
                with lock:
                    seen[self.path] = seen.get(self.path, 0) + 1
                mode, rest = ('rows', []) if seen[self.path] > 1 else (rest[0], rest[1:])
            getattr(self, 'do_' + mode)(*rest)

    def do_rows(self, *_):
        self.answer()

    def do_lines(self):
        self.answer(b'{"id": 1}\n{"id": 2}\n')

    def do_status(self, status, *_):
        self.answer(b'nothing for you', int(status), headers=())

    def do_wait(self):
        time.sleep(600)

    # redirects

    def do_to(self, status='302'):
        """Where l= leads, byte for byte."""
        self.answer(b'moved', int(status), (b'Location: ' + self.query['l'].encode('latin-1'),))

    def do_loop(self):
        self.answer(b'', 302, (b'Location: /loop',))

    def do_chain(self, n):
        if n == '0':
            self.answer()
        else:
            self.answer(b'x' * 100, 307, (b'Location: /chain/%d' % (int(n) - 1),))

    def do_redirect_endless(self):
        self.chunks_forever(b'x' * 1000, 302, (b'Location: /rows',))

    def do_redirect_slow(self):
        self.head(302, length=1000, headers=(b'Location: /rows',))
        self.drip(b'x' * 1000)

    # pages

    def do_next(self):
        """One page, whose next one is at l=, which is a JSON string."""
        self.answer(b'{"items": %s, "next": %s}' % (ROWS, self.query['l'].encode('latin-1')))

    # slow

    def do_slow_headers(self):
        self.drip(b'HTTP/1.1 200 OK\r\nX-Slow: ' + b'x' * 1000)

    def do_slow_body(self):
        self.head(200, length=1000)
        self.drip(b'[' + b' ' * 1000)

    def do_slow_error(self):
        self.head(503, length=1000)
        self.drip(b'x' * 1000)

    def do_lines_slowly(self):
        self.head(200, headers=(b'Connection: close',))
        for i in range(1, 7):
            self.send(b'{"id": %d}\n' % i)
            time.sleep(0.3)
        raise Done

    def do_stall(self):
        self.head(200, length=len(ROWS))
        self.send(ROWS[:10])
        time.sleep(600)

    # too much

    def do_line(self, size):
        """One line of so many bytes, and a short one."""
        self.answer(b'{"id": 1, "name": "%s"}\n{"id": 2}\n' % (b'x' * (int(size) - 21)))

    def do_endless(self):
        self.chunks_forever(b'[' + b' ' * 65536)

    def do_endless_line(self):
        self.chunks_forever(b'x' * 65536)

    def do_endless_error(self, status):
        self.chunks_forever(b'x' * 65536, int(status))

    def do_bomb(self, layers):
        """10 GB of blanks."""
        data = bomb
        for _ in range(int(layers) - 1):
            data = gzip.compress(data, 9)
        self.answer(data, headers=(b'Content-Encoding: ' + b', '.join([b'gzip'] * int(layers)),))

    def do_codings(self):
        data = ROWS
        for _ in range(20):
            data = gzip.compress(data)
        self.answer(data, headers=(b'Content-Encoding: ' + b', '.join([b'gzip'] * 20),))

    def do_coding(self, name):
        self.answer(b'\x1f\x8bnothing of the kind', headers=(b'Content-Encoding: ' + name.encode(),))

    def do_header_line(self):
        self.send(b'HTTP/1.1 200 OK\r\nX-Long: ')
        self.forever(b'x' * 65536)

    def do_header_lines(self):
        self.send(b'HTTP/1.1 200 OK\r\n')
        self.forever(b'Link: <y>; rel=next\r\n' * 1000)

    def do_header_many(self, n):
        self.answer(headers=[b'Link:'] * int(n))

    def do_continue(self):
        self.forever(b'HTTP/1.1 100 Continue\r\n\r\n' * 100)

    # broken

    def do_cut(self):
        self.head(200, length=len(ROWS))
        self.send(ROWS[:-2])
        raise Done

    def do_cut_at_row(self):
        self.head(200, length=1000)
        self.send(b'[{"id": 1, "name": "one"}]')
        raise Done

    def do_short_length(self):
        self.head(200, length=len(ROWS) - 5)
        self.send(ROWS)

    def do_two_lengths(self):
        self.head(200, length=5, headers=(b'Content-Length: %d' % len(ROWS),))
        self.send(ROWS)

    def do_negative_length(self):
        self.head(200, headers=(b'Content-Length: -5',))
        self.send(ROWS)

    def do_cut_chunk(self):
        self.head(200, headers=(b'Transfer-Encoding: chunked',))
        self.send(b'%x\r\n%s\r\n' % (len(ROWS), ROWS))
        raise Done

    def do_bad_chunk(self):
        self.head(200, headers=(b'Transfer-Encoding: chunked',))
        self.send(b'zz\r\n' + ROWS)
        raise Done

    def do_reset(self):
        self.head(200, length=len(ROWS))
        self.send(ROWS[:20])
        time.sleep(0.05)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        raise Done

    def do_empty(self):
        raise Done

    def do_banner(self):
        self.send(b'SSH-2.0-OpenSSH_9.2\r\n')
        raise Done

    def do_html(self):
        self.answer(b'<html>Sign in</html>', headers=(b'Content-Type: text/html',))

    # hostile text

    def do_text(self, status):
        """Control characters and what is no UTF-8, wherever it goes."""
        bad = b'a\x1b[31mb\x07c\tLOG:  forged\x00d\xff\xfe\xc3'.replace(b'\x00', b'' if 'nul' not in self.query else b'\x00')
        self.answer(b'begin ' + bad + b'\nERROR:  forged\r\n\x00end', int(status), reason=bad,
                    headers=(b'Content-Type: text/' + bad, b'X-' + bad + b': ' + bad, b'ETag: "' + bad + b'"'))

    def do_charset(self, *names):
        self.answer(headers=(b'Content-Type: application/json; charset=' + '/'.join(names).encode(),))

    # repeats what it was told

    def known(self):
        return ' '.join([self.headers.get(n, '') for n in ('authorization', 'x-api-key', 'cookie')] + [self.target, self.body.decode('latin-1')])

    def do_echo(self, status, *_):
        self.answer(self.known().encode('latin-1'), int(status), (b'Content-Type: text/' + self.known().encode('latin-1'),))

    def do_echo_far(self, status, *_):
        """Where a message cuts it off."""
        self.answer(b'x' * 190 + b' ' + self.known().encode('latin-1'), int(status))

    def do_echo_redirect(self, *_):
        secret = self.known().split(' ')[1]
        self.answer(b'', 302, (b'Location: /status/400/' + urllib.parse.quote(secret).encode(),))

    def do_echo_rows(self, *_):
        """A row that cannot be decoded."""
        self.answer(b'[{"id": "none", "name": "x"}, {"id": 7, "name": "y"}]')

    def do_echo_chain(self, n='0'):
        self.do_echo_rows() if n == '5' else self.answer(b'', 302, (
            b'Location: /echo_chain/%d?%s' % (int(n) + 1, self.target.partition('?')[2].encode()),))

    def do_token(self, mode):
        if mode == 'good':
            self.answer(b'{"access_token": "access-canary-7", "token_type": "bearer", "expires_in": 600}')
        elif mode == 'cut':
            self.do_cut()
        else:
            self.answer(self.known().encode('latin-1') + b' ' + urllib.parse.unquote_plus(self.body.decode()).encode(), int(mode))


def shake_hands(sock):
    """What the other side is told must not be overtaken by a reset."""
    try:
        sock.do_handshake()
    except OSError:
        raw = socket.socket(fileno=os.dup(sock.fileno()))
        raw.settimeout(5)
        while raw.recv(65536):
            pass
        raw.close()
        raise


def handle(name, sock, context):
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if name.startswith('silent'):
            note(event='connect', on=name)
            time.sleep(600)
        if context:
            sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            shake_hands(sock)
        Connection(name, sock).serve()
    except (Done, OSError, ValueError):
        pass
    finally:
        sock.close()


def listen(name, host, cert=None, key=None, ca=None):
    listener = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET)
    try:
        listener.bind((host, 0))
    except OSError:
        return 0
    listener.listen(64)
    context = None
    if cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        if ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(ca)

    def accept():
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=handle, args=(name, sock, context), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def make_bomb():
    """The same 64 MB again and again: blocks that stand for themselves."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    blank = b' ' * (1 << 20)
    piece = b''.join(deflate.compress(blank) for _ in range(64)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return b'\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff' + piece * 160


bomb = make_bomb()
for arg in sys.argv[2:]:
    name, _, rest = arg.partition('=')
    ports[name] = listen(name, *rest.split(','))
print(' '.join(f'{name}={port}' for name, port in ports.items()), flush=True)
sys.stdin.read()
