/**
 * What the receiver tells the local network about itself, so that a dashboard finds it without anybody typing an
 * address. Clients store the host name as the receiver's address and read the port from the TXT record, so both follow
 * the original's rules to the letter (Device Builder 1.26, `helpers/dashboard_advertise.py`).
 *
 * Only addresses on which the listener really answers are told: a dashboard that was sent to the bridge of somebody's
 * containers would look for the receiver on its own machine.
 */
import { isIPv4 } from 'node:net';
import type { networkInterfaces } from 'node:os';

import type { Bound } from './listen.js';
import { dnsLabel } from '../peers/identity.js';
import type { DashboardId } from '../paths/index.js';

/** One service of mDNS, complete. */
export interface Announcement {
  /** Without underscore: `_esphomebuilder._tcp.local`. */
  readonly type: 'esphomebuilder';
  /** The instance's name. Where it is taken, another one does: nobody stores it. */
  readonly instance: string;
  /** The target of the SRV record, without a dot at its end. Clients store it as the receiver's address. */
  readonly host: string;
  /** The port of the SRV record: where a browser finds the dashboard. */
  readonly port: number;
  readonly txt: Readonly<Record<string, string>>;
  /** IPv4 and IPv6, sorted. */
  readonly addresses: readonly string[];
}

export interface AnnouncedFacts {
  readonly dashboardId: DashboardId;
  readonly pin: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** Of this package. */
  readonly serverVersion: string;
  /** '' while it is not known. */
  readonly esphomeVersion: string;
  /** What was really bound: the pin and the port are told of nothing else. */
  readonly bound: Bound;
  readonly httpPort: number;
}

export type Networks = ReturnType<typeof networkInterfaces>;

const idCharacters = 8;
const product = 'esphome-builder';
/** One string of a TXT record has one byte for its length. */
const maxTxtBytes = 255;

/** The announcement for these addresses. */
export function announcementOf(facts: AnnouncedFacts, addresses: readonly string[]): Announcement {
  const instance = instanceName(facts.dashboardId);
  const { httpPort: port } = facts;
  return { type: 'esphomebuilder', instance, host: `${instance}.local`, port, txt: txtOf(facts), addresses };
}

/** `esphome-builder-` and the id's first eight characters as a DNS label; without any, `esphome-builder`. */
export function instanceName(id: DashboardId): string {
  const suffix = dnsLabel(id)
    .slice(0, idCharacters)
    .replace(/^-+|-+$/g, '');
  return suffix === '' ? product : `${product}-${suffix}`;
}

function txtOf(facts: AnnouncedFacts): Record<string, string> {
  const { serverVersion, esphomeVersion, friendlyName, pin, bound, haAddon } = facts;
  const all = {
    server_version: serverVersion,
    esphome_version: esphomeVersion,
    friendly_name: friendlyName.trim() || 'esphome-dashboard',
    pin_sha256: pin,
    remote_build_port: String(bound.port),
    ha_addon: haAddon ? '1' : '',
  };
  const said = Object.entries(all).filter(([, value]) => value !== '');
  return Object.fromEntries(said.map(([key, value]) => [key, cut(value, maxTxtBytes - key.length - 1)]));
}

/** At most so many bytes of UTF-8, without half a character. */
function cut(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  let end = Math.min(bytes.length, maxBytes);
  while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}

/** Adapters whose addresses mean something on this machine alone; the prefixes are the original's. */
const localAdapters = /^(?:lo|docker|hassio|veth|cni|virbr|podman|vethernet|br-[0-9a-f]{12}$)/i;
/** 169.254.0.0/16 and fe80::/10: useless without the interface, which the wire cannot say. */
const linkLocal = /^(?:169\.254\.|fe[89ab][0-9a-f]:)/i;
const loopback = /^(?:127\.|::1$)/;

/**
 * Where a listener that is bound to `bound` is reached from outside. With `via`, an IPv4 address of this machine,
 * only the addresses of its adapter.
 */
export function reachableAddresses(networks: Networks, { address: bound }: Bound, via?: string): string[] {
  const found = Object.entries(networks)
    .filter(([name]) => !localAdapters.test(name))
    .map(([, entries = []]) => entries.map(({ address }) => address))
    .filter((addresses) => via === undefined || addresses.includes(via))
    .flat()
    .filter((address) => !linkLocal.test(address) && !loopback.test(address))
    .filter((address) => answersOn(bound, address));
  return [...new Set(found)].toSorted();
}

function answersOn(bound: string, address: string): boolean {
  if (bound === '::') return true;
  return bound === '0.0.0.0' ? isIPv4(address) : bound === address;
}
