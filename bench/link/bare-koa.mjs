/** The bare server of the same kind: Koa and `ws`, and nothing behind them. */
import { createServer } from 'node:http';

import Koa from 'koa';
import { WebSocketServer } from 'ws';

const app = new Koa();
const answer = app.callback();
const server = createServer((request, response) => void answer(request, response));
const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, socket, head) => sockets.handleUpgrade(request, socket, head, () => {}));
server.listen(0, '127.0.0.1', () => console.log('listening'));
