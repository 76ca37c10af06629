/**
 * The peers file and its rows (Device Builder 1.26). A row is kept as it was read and accessed only through
 * {@link peerOf}, so a field of another release survives. The pin authorises; the public key is kept for Device Builder
 * and never trusted.
 */
import * as z from 'zod';

import { parseJson, writeJsonFile } from '../disk/json-file.js';
import { ReceiverError } from '../errors.js';
import type { DashboardId } from '../paths/index.js';
import { pinOf } from '../protocol/fingerprint.js';
import { idOrUndefined } from './identity.js';

export interface Peer {
  readonly dashboardId: DashboardId;
  /** SHA-256 of the peer's public key in lower-case hex, which the key of every connection must match. */
  readonly pin: string;
  readonly label: string;
  /** Whether the peer's program chose the label. */
  readonly labelAuto: boolean;
  /** The time of the pairing request, in seconds since 1970. */
  readonly pairedAt: number;
  /** The last known address, or empty. */
  readonly address: string;
  /** The port of the peer's own listener, or 0. */
  readonly connectBackPort: number;
  readonly friendlyName: string;
  readonly haAddon: boolean;
}

/** A peer before its approval; the pin follows from the key. */
export interface NewPeer extends Omit<Peer, 'pin'> {
  readonly publicKey: Uint8Array;
}

/** Facts that a peer can renew when it connects. Absent fields keep their value. */
export type PeerChanges = Partial<
  Pick<Peer, 'label' | 'labelAuto' | 'address' | 'friendlyName' | 'haAddon' | 'connectBackPort'>
>;

const rowSchema = z.looseObject({
  dashboard_id: z.custom<DashboardId>((id) => idOrUndefined(id) !== undefined),
  pin_sha256: z.string().regex(/^[0-9a-f]{64}$/),
  static_x25519_pub: z.string(),
  label: z.string(),
  paired_at: z.number(),
  peer_ip: z.string().default(''),
  connect_back_port: z.number().default(0),
  friendly_name: z.string().default(''),
  ha_addon: z.boolean().default(false),
  label_auto: z.boolean().default(false),
});

export type Row = Readonly<z.infer<typeof rowSchema>>;

const fileSchema = z.object({ version: z.int().default(1), peers: z.array(z.unknown()) });

/** The valid rows of a peers file and the number of invalid ones; undefined for a damaged file. Throws `STATE`. */
export function readPeersFile(
  content: Buffer,
): { readonly rows: Row[]; readonly badRows: number } | undefined {
  const document = fileSchema.safeParse(parseJson(content.toString('utf8')));
  if (!document.success) return undefined;
  const { version, peers } = document.data;
  if (version > 1)
    throw new ReceiverError('STATE', 'the peers file was written by a newer release', { version });
  const rows = peers.map((row) => rowSchema.safeParse(row)).flatMap(({ data }) => (data ? [data] : []));
  return { rows, badRows: peers.length - rows.length };
}

export async function writePeersFile(file: string, rows: readonly Row[]): Promise<void> {
  await writeJsonFile(file, { version: 1, peers: rows });
}

export function peerOf(row: Row): Peer {
  return {
    dashboardId: row.dashboard_id,
    pin: row.pin_sha256,
    label: cleanLabel(row.label),
    labelAuto: row.label_auto,
    pairedAt: row.paired_at,
    address: row.peer_ip,
    connectBackPort: isPort(row.connect_back_port) ? row.connect_back_port : 0,
    friendlyName: cleanLabel(row.friendly_name),
    haAddon: row.ha_addon,
  };
}

/** The row of a new peer, with the fields in Device Builder's order. */
export function newRow(peer: NewPeer): Row {
  return {
    dashboard_id: peer.dashboardId,
    pin_sha256: pinOf(peer.publicKey),
    // Python's MIME encoding ends in a newline.
    static_x25519_pub: `${Buffer.from(peer.publicKey).toString('base64')}\n`,
    label: peer.label,
    paired_at: peer.pairedAt,
    peer_ip: peer.address,
    connect_back_port: peer.connectBackPort,
    friendly_name: peer.friendlyName,
    ha_addon: peer.haAddon,
    label_auto: peer.labelAuto,
  };
}

/** The changed row, or the same object if nothing changes. */
export function changeRow(row: Row, changes: PeerChanges): Row {
  const changed = {
    ...row,
    label: changes.label ?? row.label,
    label_auto: changes.labelAuto ?? row.label_auto,
    peer_ip: changes.address ?? row.peer_ip,
    connect_back_port: changes.connectBackPort ?? row.connect_back_port,
    friendly_name: changes.friendlyName ?? row.friendly_name,
    ha_addon: changes.haAddon ?? row.ha_addon,
  };
  return JSON.stringify(changed) === JSON.stringify(row) ? row : changed;
}

function isPort(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 65_535;
}

const maxCharacters = 128;
/** Control, format and direction characters, surrogates, unassigned ones, line ends, fillers, the blank Braille cell. */
const invisible = /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/**
 * A name that a stranger chose, safe to show to the operator who decides about it: a direction mark or an invisible letter
 * can make "intruder" look like the operator's own dashboard. At most 128 visible characters, with single spaces; empty if
 * the value is not a string.
 */
export function cleanLabel(text: unknown): string {
  if (typeof text !== 'string') return '';
  const visible = text.replace(/\s+/g, ' ').replace(invisible, '').trim();
  return visible.length <= maxCharacters
    ? visible
    : Array.from(visible).slice(0, maxCharacters).join('').trimEnd();
}
