#!/usr/bin/env python3
"""An HTTP server that sends what it is told, byte for byte.

usage: httpraw.py LOG ANSWERS CERTIFICATE KEY

ANSWERS is a file of JSON, read anew for each request: {path: [step, ...]}, steps
are ["send", text], ["base64", text], ["repeat", text, times (-1: for ever), pause],
["sleep", seconds], ["reset"], ["close"], ["bye"] (TLS: close after saying so).  Texts are Latin-1; {main} and {other} in
them are the origins.  /echo answers with the request; other paths with 404.

Prints "MAIN OTHER TLS SILENT": ports on 127.0.0.1, 127.0.0.2, with TLS, and of one
that takes connections and says nothing.  Each request is a line of JSON in LOG, after the
number of its connection.  Ends with its standard input.
"""
import base64
import json
import socket
import ssl
import struct
import sys
import threading
import time

lock = threading.Lock()
origins = {}
connections = 0


class Closed(Exception):
    pass


def read_request(sock, rest):
    while b'\r\n\r\n' not in rest:
        data = sock.recv(65536)
        if not data:
            raise Closed
        rest += data
    head, rest = rest.split(b'\r\n\r\n', 1)
    lines = head.decode('latin-1').split('\r\n')
    method, target, _ = lines[0].split(' ', 2)
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(':')
        headers.setdefault(name.lower(), value.strip())
    while len(rest) < int(headers.get('content-length', 0)):
        data = sock.recv(65536)
        if not data:
            raise Closed
        rest += data
    length = int(headers.get('content-length', 0))
    return dict(method=method, target=target, headers=headers, body=rest[:length].decode('latin-1')), rest[length:]


def fill(text):
    for name, origin in origins.items():
        text = text.replace('{%s}' % name, origin)
    return text.encode('latin-1')


def act(sock, step):
    kind, args = step[0], step[1:]
    if kind == 'send':
        sock.sendall(fill(args[0]))
    elif kind == 'base64':
        sock.sendall(base64.b64decode(args[0]))
    elif kind == 'repeat':
        data, times, pause = fill(args[0]), args[1], args[2]
        while times != 0:
            sock.sendall(data)
            times -= 1
            time.sleep(pause)
    elif kind == 'sleep':
        time.sleep(args[0])
    elif kind == 'reset':
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        raise Closed
    else:
        if kind == 'bye':
            sock.unwrap()
        raise Closed


def respond(sock, request):
    path = request['target'].partition('?')[0]
    with open(sys.argv[2], encoding='latin-1') as file:
        steps = json.load(file).get(path)
    if path == '/echo':
        body = json.dumps(request)
        steps = [['send', 'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(body), body)]]
    for step in steps or [['send', 'HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone']]:
        act(sock, step)


def handle(name, sock):
    global connections
    with lock:
        connections += 1
        number = connections
    rest = b''
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if name == 'tls':
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*sys.argv[3:5])
            sock = context.wrap_socket(sock, server_side=True)
        while True:
            request, rest = read_request(sock, rest)
            request.update(on=name, connection=number)
            with lock, open(sys.argv[1], 'a') as log:
                log.write(json.dumps(request) + '\n')
            respond(sock, request)
    except (Closed, OSError, ValueError):
        pass
    finally:
        sock.close()


def listen(name, host):
    listener = socket.create_server((host, 0), backlog=64)
    held = []

    def accept():
        while True:
            sock, _ = listener.accept()
            if name == 'silent':
                held.append(sock)
            else:
                threading.Thread(target=handle, args=(name, sock), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    port = listener.getsockname()[1]
    origins[name] = 'http://%s:%d' % (host, port)
    return port


print(listen('main', '127.0.0.1'), listen('other', '127.0.0.2'), listen('tls', '127.0.0.1'),
      listen('silent', '127.0.0.1'), flush=True)
sys.stdin.read()
