/**
 * The strangers: so many sockets that say half of something, or nothing, each opened again half a second after its end.
 * Says once that all of them have been there.
 */
import { connect } from 'node:net';

const [port = '', wanted = ''] = process.argv.slice(2);
const again = 500;
const halves = [
  '',
  'GET /remote-b',
  'GET / HTTP/1.1\r\nHost: x\r\nX-Long: ',
  'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
];
let connected = 0;

function come(n: number): void {
  const socket = connect({ port: Number(port), host: '127.0.0.1', localAddress: `127.0.0.${2 + (n % 8)}` });
  socket.on('error', () => {});
  socket.once('connect', () => {
    socket.write(halves[n % halves.length] ?? '');
    connected += 1;
    if (connected === Number(wanted)) process.send?.('all');
  });
  socket.resume().once('close', () => setTimeout(come, again, n + 1));
}

process.on('disconnect', () => process.exit());
for (let n = 0; n < Number(wanted); n += 1) come(n);
