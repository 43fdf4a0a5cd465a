// Node's http as a backend: node_server.js NOTES. Listens twice: as it is, and with its lax parser.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const notes = fs.openSync(process.argv[2], 'a');

function note(facts) {
  fs.writeSync(notes, JSON.stringify(facts) + '\n');
}

function serve(request, response) {
  const hash = crypto.createHash('sha256');
  let length = 0;
  request.on('data', (data) => {
    hash.update(data);
    length += data.length;
  });
  request.on('end', () => {
    note({
      peer: request.socket.peer,
      method: request.method,
      target: request.url,
      host: request.headers.host || '',
      length,
      sha256: hash.digest('hex'),
    });
    response.setHeader('X-Saw', request.headers['x-request-id'] || '-');
    response.setHeader('Content-Length', 5);
    response.end(request.method === 'HEAD' ? undefined : 'seen\n');
  });
}

function refuse(error, socket) {
  // Only what the parser says is a refusal; a connection that ends is not. The rest of the same request follows it.
  if (String(error.code).startsWith('HPE_') && !socket.refused) note({ peer: socket.peer, refused: `400 ${error.code}` });
  socket.refused = true;
  if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
  else socket.destroy();
}

for (const [name, insecureHTTPParser] of [['node', false], ['node-lax', true]]) {
  const options = { insecureHTTPParser, maxHeaderSize: 128 << 10, keepAliveTimeout: 75000, noDelay: true };
  const server = http.createServer(options, serve);
  // An address is not known any more once the socket is closed.
  server.on('connection', (socket) => {
    socket.peer = socket.remoteAddress;
  });
  server.on('clientError', refuse);
  server.listen(0, '127.0.0.1', () => console.log(`ready ${name} ${server.address().port}`));
}
