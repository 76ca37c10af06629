/**
 * The content of the mDNS announcement, by which a dashboard finds the receiver. Clients store the host name as the
 * receiver's address and read the port from the TXT record, so both follow Device Builder 1.26 exactly
 * (`helpers/dashboard_advertise.py`). Only addresses that the listener answers on are announced: a dashboard that gets the
 * address of a container bridge would look for the receiver on its own machine.
 */
import { isIPv4 } from 'node:net';
import type { networkInterfaces } from 'node:os';

import type { Bound } from './listen.js';
import { dnsLabel } from '../peers/identity.js';
import type { DashboardId } from '../paths/index.js';

/** One complete mDNS service. */
export interface Announcement {
  /** The service type `_esphomebuilder._tcp.local`, without the underscore. */
  readonly type: 'esphomebuilder';
  /** The instance name. Clients do not store it, so the publisher can choose another if it is taken. */
  readonly instance: string;
  /** The target of the SRV record, without the trailing dot. Clients store it as the receiver's address. */
  readonly host: string;
  /** The port of the SRV record, where a browser finds the dashboard. */
  readonly port: number;
  readonly txt: Readonly<Record<string, string>>;
  /** IPv4 and IPv6, sorted. */
  readonly addresses: readonly string[];
}

export interface AnnouncedFacts {
  readonly dashboardId: DashboardId;
  /** Default: the first. */
  readonly lane?: number | undefined;
  readonly pin: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** The version of this package. */
  readonly serverVersion: string;
  /** Empty while it is unknown. */
  readonly esphomeVersion: string;
  readonly bound: Bound;
  readonly httpPort: number;
}

export type Networks = ReturnType<typeof networkInterfaces>;

const idCharacters = 8;
const product = 'esphome-builder';
/** A TXT string stores its length in one byte. */
const maxTxtBytes = 255;

export function announcementOf(facts: AnnouncedFacts, addresses: readonly string[]): Announcement {
  const { lane = 1 } = facts;
  const instance = `${instanceName(facts.dashboardId)}${lane === 1 ? '' : `-${lane}`}`;
  const { httpPort: port } = facts;
  return { type: 'esphomebuilder', instance, host: `${instance}.local`, port, txt: txtOf(facts), addresses };
}

/** `esphome-builder-` and the first eight characters of the id as a DNS label; `esphome-builder` if none is usable. */
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
  const known = Object.entries(all).filter(([, value]) => value !== '');
  return Object.fromEntries(
    known.map(([key, value]) => [key, truncate(value, maxTxtBytes - key.length - 1)]),
  );
}

/** The longest prefix of whole characters that fits into `maxBytes` of UTF-8. */
function truncate(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  let end = Math.min(bytes.length, maxBytes);
  while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.toString('utf8', 0, end);
}

/** Adapters whose addresses are meaningless on other machines; the prefixes are Device Builder's. */
const localAdapters = /^(?:lo|docker|hassio|veth|cni|virbr|podman|vethernet|br-[0-9a-f]{12}$)/i;
/** 169.254.0.0/16 and fe80::/10 are useless without the interface, which an mDNS record cannot name. */
const linkLocal = /^(?:169\.254\.|fe[89ab][0-9a-f]:)/i;
const loopback = /^(?:127\.|::1$)/;

/**
 * The addresses at which other machines reach a listener. With `via`, an IPv4 address of this machine, only the addresses
 * of that adapter.
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
