/**
 * The door of `koa-esphome-receiver/offloader`: the client with a way to reach a receiver over the network. It stands
 * here and not in `offloader/`, because that folder knows no socket library.
 */
export * from '../offloader/index.js';
export { dial, type DialOptions, type Where } from './dial.js';
