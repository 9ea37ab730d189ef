"""ROS peers on bare sockets, which can stall in the middle of a message, vanish, and never read."""
from __future__ import annotations

import io
import socket
import struct
import threading
import xmlrpc.client
from xmlrpc.server import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer

import rosgraph


def header(**fields):
    """Return a TCPROS connection header."""
    body = b"".join(struct.pack("<I", len(item)) + item
                    for item in (f"{key}={value}".encode() for key, value in fields.items()))
    return struct.pack("<I", len(body)) + body


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


class RawPublisher:
    """A publisher of one topic, registered like a node; `send` frames messages by hand. caller: node name that it claims."""

    def __init__(self, name, topic, message_class, caller):
        self.name, self.topic, self.kind, self.caller = name, topic, message_class, caller
        self.connections = []
        self._listener = None
        self.listen()
        self._api = SimpleXMLRPCServer(("127.0.0.1", 0), SimpleXMLRPCRequestHandler, logRequests=False)
        self._api.register_function(self._request_topic, "requestTopic")
        self._api.register_function(lambda *_: [1, "", 0], "publisherUpdate")
        self._api.register_function(lambda *_: [1, "", 1], "getPid")
        threading.Thread(target=self._api.serve_forever, daemon=True).start()
        self._uri = f"http://127.0.0.1:{self._api.server_address[1]}/"
        rosgraph.Master(name).registerPublisher(topic, message_class._type, self._uri)

    def _request_topic(self, _caller, _topic, _protocols):
        return [1, "", ["TCPROS", "127.0.0.1", self.port]]

    def listen(self, port=0):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(5)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
                receive(connection, struct.unpack("<I", receive(connection, 4))[0])
                connection.sendall(header(callerid=self.caller, topic=self.topic, type=self.kind._type,
                                          md5sum=self.kind._md5sum, latching=0))
                self.connections.append(connection)
            except OSError:
                return

    def frame(self, message):
        buffer = io.BytesIO()
        message.serialize(buffer)
        return struct.pack("<I", len(buffer.getvalue())) + buffer.getvalue()

    def send(self, message, share=1.0):
        """Send a message, or only its first `share`: below 1, the rest of the message never comes."""
        data = self.frame(message)
        for connection in list(self.connections):
            try:
                connection.sendall(data[:int(share * len(data))])
            except OSError:
                self.connections.remove(connection)

    def split(self):
        """Break every connection as a lost network does (reset, no shutdown handshake), and accept no new one."""
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        self._listener.close()
        for connection in self.connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        self.connections = []

    def heal(self):
        self.listen(self.port)

    def close(self):
        self.split()
        rosgraph.Master(self.name).unregisterPublisher(self.topic, self._uri)
        self._api.shutdown()


def deaf_subscriber(name, publisher_uri, topic, message_class):
    """Return a connection that completes the handshake and never reads afterwards."""
    answer = xmlrpc.client.ServerProxy(publisher_uri).requestTopic(name, topic, [["TCPROS"]])
    _, host, port = answer[2]
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((host, port))
    connection.sendall(header(callerid=name, topic=topic, type=message_class._type, md5sum=message_class._md5sum,
                              tcp_nodelay=0))
    receive(connection, struct.unpack("<I", receive(connection, 4))[0])
    return connection
