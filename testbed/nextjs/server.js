// Next.js behind a server of our own, because Next carries no WebSockets.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import next from 'next';
import { Server } from 'socket.io';

const port = Number(process.env.PORT) || 3000;
const dev = process.env.NODE_ENV !== 'production';
if (!dev) {
  // As Next's own server in the standalone output does: what reads next.config.js is not in there.
  const { config } = JSON.parse(readFileSync('.next/required-server-files.json'));
  process.env.__NEXT_PRIVATE_STANDALONE_CONFIG = JSON.stringify(config);
}
const app = next({ dev, port });
await app.prepare();

const server = createServer(app.getRequestHandler());
// LiteFS keeps connections for 90 s and sends no POST twice: Node's own 5 s would lose the one that comes as it closes.
server.keepAliveTimeout = Number(process.env.KEEP_ALIVE_TIMEOUT) || 95_000;
// As long as Traefik lets a client send (traefik_read_timeout): Node's own 300 s end an upload over a slow line with 408.
server.requestTimeout = 600_000;

const io = new Server(server, { path: '/api/socket' });
io.on('connection', (socket) => {
  socket.on('echo', (text) => socket.emit('echo', text, process.env.POD_NAME));
});

// No host: on all addresses, since LiteFS asks localhost and Traefik the pod's.
server.listen(port, () => console.log(`listening on ${port}`));

// What is under way is answered; streams that do not end are cut before the pod is killed.
process.once('SIGTERM', async () => {
  setTimeout(() => process.exit(0), 20_000);
  setInterval(() => server.closeIdleConnections(), 250);
  await io.close(); // sockets, and then the server
  process.exit(0);
});
