/**
 * Keeps the mDNS announcement current: publishes once a port is bound, checks every five minutes whether the addresses or
 * the ESPHome version have changed, and withdraws when the receiver closes. The receiver works without an announcement,
 * so a failure is logged and retried at the next check; it never reaches a caller.
 */
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';

import type { ReceiverCore } from '../receiver-api.js';
import { ReceiverError } from '../errors.js';
import type { DashboardId } from '../paths/index.js';
import { createSerialQueue } from '../async/calls.js';
import type { Clock } from '../async/clock.js';
import { loadDashboardId } from '../peers/identity.js';
import { announcementOf, reachableAddresses, type Announcement, type Networks } from './announcement.js';
import type { Bound } from './listen.js';

/** Speaks mDNS. A publisher announces one service at a time. */
export interface Publisher {
  /**
   * Announces this service in place of the previous one. Resolves to the instance name, which differs from the requested
   * one if that was taken. Rejects when nothing is announced.
   */
  publish(announcement: Announcement): Promise<string>;
  /** Sends the goodbye. Ends a `publish` in progress, which can then reject. */
  withdraw(): Promise<void>;
}

export type Announcer = ReturnType<typeof createAnnouncer>;

interface AnnouncerOptions {
  readonly publisher: Publisher;
  readonly core: Pick<ReceiverCore, 'options' | 'pin' | 'esphomeVersion'> & {
    /** Default: the first. */
    readonly lane?: number;
  };
  /** Default: the port of the peer link. */
  readonly httpPort?: number | undefined;
  /** The IPv4 address of the only adapter to announce on. */
  readonly via?: string | undefined;
  readonly clock: Clock;
  readonly networks?: () => Networks;
}

export const recheckMs = 300_000;
const goodbyeMs = 2_000;

export function createAnnouncer({
  publisher,
  core,
  httpPort,
  via,
  clock,
  networks = networkInterfaces,
}: AnnouncerOptions) {
  const { log, stateDir, friendlyName, haAddon } = core.options;
  const listeners: Bound[] = [];
  /** The announcement as JSON; null when nothing is announced, undefined when that is unknown. */
  let published: string | null | undefined;
  let dashboardId: DashboardId | null = null;
  let esphomeVersion = '';
  const checks = createSerialQueue();
  let stopTimer = (): void => {};
  let closing: Promise<void> | null = null;

  function scheduleCheck(): void {
    stopTimer();
    stopTimer = clock.after(recheckMs, scheduleCheck);
    void checks.run(checkNow);
  }

  async function checkNow(): Promise<void> {
    try {
      const wanted = closing === null ? await describe() : null;
      if (closing !== null) return;
      const text = wanted && JSON.stringify(wanted);
      if (text === published) return;
      published = undefined;
      await (wanted === null ? withdrawUnreachable() : publish(wanted));
      published = text;
    } catch (error) {
      if (closing === null) log.warn({ err: error }, 'mDNS announcement failed, trying again later');
    }
  }

  async function describe(): Promise<Announcement | null> {
    const found = listeners
      .map((bound) => ({ bound, addresses: reachableAddresses(networks(), bound, via) }))
      .find(({ addresses }) => addresses.length > 0);
    if (found === undefined) return null;
    const { bound, addresses } = found;
    dashboardId ??= await loadDashboardId(stateDir, log);
    // An ESPHome that does not answer right now most likely still has the same version.
    esphomeVersion = await core.esphomeVersion().catch(() => esphomeVersion);
    const facts = {
      pin: core.pin,
      lane: core.lane,
      friendlyName,
      haAddon,
      serverVersion: await ownVersion(),
    };
    return announcementOf(
      { ...facts, dashboardId, esphomeVersion, bound, httpPort: httpPort ?? bound.port },
      addresses,
    );
  }

  async function publish(announcement: Announcement): Promise<void> {
    const instance = await publisher.publish(announcement);
    const { host, port, addresses, txt } = announcement;
    log.info({ instance, host, port, addresses, txt }, 'receiver announced by mDNS');
  }

  async function withdrawUnreachable(): Promise<void> {
    await publisher.withdraw();
    log.warn({ listeners, via }, 'receiver not announced: it listens on loopback only');
  }

  async function end(): Promise<void> {
    stopTimer();
    let stopWaiting = (): void => {};
    const tooLong = new Promise<void>((_resolve, reject) => {
      const fail = (): void =>
        reject(new ReceiverError('STATE', 'mDNS goodbye timed out after 2 s', { goodbyeMs }));
      stopWaiting = clock.after(goodbyeMs, fail, true);
    });
    const goodbye = Promise.all([publisher.withdraw(), checks.idle()]);
    await Promise.race([goodbye, tooLong]).catch((error: unknown) => {
      log.warn({ err: error }, 'mDNS announcement not withdrawn');
    });
    stopWaiting();
  }

  return {
    /** Announces a listener that has just been bound. Of several, the first with a reachable address is announced. */
    begin(bound: Bound): void {
      if (closing !== null) return;
      listeners.push(bound);
      scheduleCheck();
    },
    /** Resolves when the goodbye is sent, after two seconds at most. */
    close: () => (closing ??= Promise.resolve().then(end)),
  };
}

async function ownVersion(): Promise<string> {
  const manifest = await readFile(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}
