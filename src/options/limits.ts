/**
 * The grouped options: limits for bundles, connections and retention. A few kilobytes of gzip can expand to a whole
 * disk, anyone on the network can open a socket, and builds pile up, so everything that a peer or an unknown client can
 * make larger has a limit.
 */
import * as z from 'zod';

import { option } from './schema.js';

const kibibyte = 1_024;
const mebibyte = 1_024 * kibibyte;
export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

const atLeastOne = z.int().min(1);

/** The peer link's limit for a bundle. */
export const mostPackedBytes = 128 * mebibyte;

export const bundleLimits = {
  packedBytes: option(atLeastOne.max(mostPackedBytes).default(mostPackedBytes), {
    summary: 'Size of the archive as it arrives.',
    details: 'Checked when the upload is announced. The maximum is that of the peer link.',
  }),
  unpackedBytes: option(atLeastOne.default(500 * mebibyte), {
    summary: 'Total size of the unpacked files.',
    details: 'The default is that of ESPHome and Device Builder.',
  }),
  members: option(atLeastOne.default(20_000), {
    summary: 'Number of members in the archive, and of files and directories in the unpacked tree.',
  }),
  depth: option(atLeastOne.default(64), {
    summary: 'Number of names in one path.',
  }),
  segmentBytes: option(atLeastOne.max(255).default(255), {
    summary: 'Length of one name in bytes.',
  }),
  pathBytes: option(atLeastOne.default(4 * kibibyte), {
    summary: 'Length of one path in bytes.',
  }),
  ratio: option(atLeastOne.default(200), {
    summary: 'Unpacked bytes per packed byte, once more than `ratioFreeBytes` are unpacked.',
  }),
  ratioFreeBytes: option(atLeastOne.default(128 * mebibyte), {
    summary: 'Unpacked bytes up to which `ratio` is not checked.',
    details: 'A small YAML file can be very repetitive.',
  }),
  manifestBytes: option(atLeastOne.default(mebibyte), {
    summary: 'Size of `manifest.json`.',
    details: 'The default is that of ESPHome.',
  }),
  uploadTimeoutMs: option(atLeastOne.max(dayMs).default(15 * minuteMs), {
    summary: 'Time from the announcement of an upload to its complete tree.',
  }),
};

export const connectionLimits = {
  sockets: option(z.int().min(16).max(65_536).default(1_024), {
    summary:
      "Number of sockets on the receiver's own port that have not been upgraded to the peer link, and of event sockets that nobody has authorized yet.",
  }),
  strangers: option(z.int().min(4).max(4_096).default(64), {
    summary: 'Number of connections that have not been authenticated as a paired peer.',
  }),
  strangersPerAddress: option(z.int().min(2).max(4_096).default(16), {
    summary: 'The same from one network: an IPv4 address, or the first 64 bits of an IPv6 address.',
  }),
  handshakesPerSecond: option(z.int().min(1).max(10_000).default(20), {
    summary: 'Number of handshakes that one network can start per second.',
    details: 'Four times as many can start at once.',
  }),
  handshakeTimeoutMs: option(z.int().min(1_000).max(minuteMs).default(10_000), {
    summary:
      'Time limit for the upgrade, for the authorization of an event socket, and for each of the two messages of a handshake.',
  }),
  pairingRequests: option(z.int().min(1).max(1_000).default(32), {
    summary: 'Number of pairing requests that wait for a decision; one network can have a quarter of them.',
    details: 'A further request replaces the oldest one of the network with the most.',
  }),
  waitersPerRequest: option(z.int().min(1).max(64).default(4), {
    summary: 'Number of connections that wait for the answer to one pairing request.',
    details: 'A further one replaces the oldest, whose client has most likely gone.',
  }),
};

const room = () =>
  z
    .int()
    .min(0)
    .max(2 ** 50)
    .nullable()
    .default(null);

export const retentionLimits = {
  buildTtlMs: option(
    z
      .int()
      .min(hourMs)
      .max(30 * dayMs)
      .default(dayMs),
    {
      summary: "How long a device's build is kept after its last build, download or `touch`.",
    },
  ),
  maxBuildBytes: option(room(), {
    summary: 'Disk space for the builds of all peers; `null` sets no limit.',
    details: 'The least recently used builds are removed first, never one in use.',
  }),
  maxBuildBytesPerPeer: option(room(), {
    summary: 'Disk space for the builds of one peer; `null` sets no limit.',
  }),
  maxResultBytes: option(room(), {
    summary: 'Total size of the stored results; `null` sets no limit.',
  }),
  toolTtlMs: option(
    z
      .int()
      .min(dayMs)
      .max(365 * dayMs)
      .default(30 * dayMs),
    {
      summary: 'How long ESPHome releases and toolchains are kept after the last build that used them.',
    },
  ),
  maxToolBytes: option(room(), {
    summary: 'Disk space for installed ESPHome releases and toolchains together; `null` sets no limit.',
    details: 'Caches do not count; the compiler cache has its own limit (5 GB for ccache).',
  }),
};
