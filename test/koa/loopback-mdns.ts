/**
 * mDNS that cannot leave this machine: multicast on the loopback adapter only, on a separate port. Publisher and
 * listener both use the adapter of 127.0.0.1, and no other program uses a port other than 5353.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';

import Bonjour, { type Service } from 'bonjour-service';

import type { Cleanups } from '../support/temp-dir.js';
import { waitFor } from '../support/wait-for.js';

export const loopback = '127.0.0.1';
const group = '224.0.0.251';

/** A UDP port that is free right now. */
export async function freeUdpPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, loopback);
  await once(socket, 'listening');
  const { port } = socket.address();
  socket.close();
  await once(socket, 'close');
  return port;
}

/** Every packet sent to the group, as raw bytes. */
export async function recordPackets(t: Cleanups, port: number): Promise<readonly Buffer[]> {
  const packets: Buffer[] = [];
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  t.after(() => void socket.close());
  socket.on('message', (packet) => packets.push(packet));
  socket.bind(port);
  await once(socket, 'listening');
  socket.addMembership(group, loopback);
  return packets;
}

export interface Seen {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly txt: Record<string, string>;
  readonly addresses: readonly string[];
}

export interface Watcher {
  /** `up NAME`, `down NAME`, `txt NAME`, in order. */
  readonly events: readonly string[];
  /** The service at the time of the event. */
  seen(event: string): Promise<Seen>;
}

/** What a browser for our service type sees. */
export function watch(t: Cleanups, port: number): Watcher {
  const options = { interface: loopback, bind: '0.0.0.0', port };
  const bonjour = new Bonjour(options);
  t.after(() => new Promise<void>((resolve) => bonjour.destroy(resolve)));
  const events: string[] = [];
  const services = new Map<string, Seen>();
  const browser = bonjour.find({ type: 'esphomebuilder' });
  for (const [name, word] of [
    ['up', 'up'],
    ['down', 'down'],
    ['txt-update', 'txt'],
  ] as const) {
    browser.on(name, (service: Service) => {
      events.push(`${word} ${service.name}`);
      services.set(`${word} ${service.name}`, service as unknown as Seen);
    });
  }
  return { events, seen: (event) => waitFor(() => services.get(event), { what: event }) };
}
