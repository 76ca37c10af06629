/**
 * Keeps the announcement true: made only after the port was bound, looked at again every five minutes (another address,
 * another ESPHome), withdrawn before the receiver goes. A receiver works without it, so nothing here ever fails anybody:
 * what goes wrong is logged, and the next look tries again.
 */
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';

import type { ReceiverCore } from '../receiver-api.js';
import { ReceiverError } from '../errors.js';
import type { DashboardId } from '../paths/index.js';
import { createSerialQueue } from '../async/serial-queue.js';
import type { Clock } from '../async/clock.js';
import { loadDashboardId } from '../peers/identity.js';
import { announcementOf, reachableAddresses, type Announcement, type Networks } from './announcement.js';
import type { Bound } from './listen.js';

/** What speaks mDNS. One publisher announces one service at a time. */
export interface Publisher {
  /**
   * Announces this from now on, in the place of what it announced before. Resolves to the instance's name once that is
   * done; it is another one where the name was taken. Rejects when nothing is announced.
   */
  publish(announcement: Announcement): Promise<string>;
  /** Says goodbye. Ends a `publish` that is under way, which may then reject. */
  withdraw(): Promise<void>;
}

export interface Announcer {
  /** Announces a listener that was bound just now. Of several, the first that is reached from outside. */
  begin(bound: Bound): void;
  /** Resolves when the goodbye is out, after two seconds at the latest. */
  close(): Promise<void>;
}

export interface AnnouncerOptions {
  readonly publisher: Publisher;
  readonly core: Pick<ReceiverCore, 'options' | 'pin' | 'esphomeVersion'>;
  /** Default: the port of the peer link. */
  readonly httpPort?: number | undefined;
  /** The IPv4 address of the one network in which it is announced. */
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
}: AnnouncerOptions): Announcer {
  const { log, stateDir, friendlyName, haAddon } = core.options;
  const listeners: Bound[] = [];
  /** What is announced; null for nothing, undefined when that is not known. */
  let said: string | null | undefined;
  let dashboardId: DashboardId | null = null;
  let esphomeVersion = '';
  const looks = createSerialQueue();
  let stopTimer = (): void => {};
  let closing: Promise<void> | null = null;

  function look(): void {
    stopTimer();
    stopTimer = clock.after(recheckMs, look);
    void looks.run(lookNow);
  }

  async function lookNow(): Promise<void> {
    try {
      const wanted = closing === null ? await describe() : null;
      if (closing !== null) return;
      const text = wanted && JSON.stringify(wanted);
      if (text === said) return;
      said = undefined;
      await (wanted === null ? sayNothing() : say(wanted));
      said = text;
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
    // One that does not answer just now is most likely still the same.
    esphomeVersion = await core.esphomeVersion().catch(() => esphomeVersion);
    const facts = { pin: core.pin, friendlyName, haAddon, serverVersion: await ownVersion() };
    return announcementOf(
      { ...facts, dashboardId, esphomeVersion, bound, httpPort: httpPort ?? bound.port },
      addresses,
    );
  }

  async function say(announcement: Announcement): Promise<void> {
    const instance = await publisher.publish(announcement);
    const { host, port, addresses, txt } = announcement;
    log.info({ instance, host, port, addresses, txt }, 'receiver announced by mDNS');
  }

  async function sayNothing(): Promise<void> {
    await publisher.withdraw();
    log.warn({ listeners, via }, 'receiver not announced: it listens on loopback only');
  }

  async function end(): Promise<void> {
    stopTimer();
    let stopWaiting = (): void => {};
    const tooLong = new Promise<void>((_resolve, reject) => {
      const fail = (): void => reject(new ReceiverError('STATE', 'the goodbye took too long', { goodbyeMs }));
      stopWaiting = clock.after(goodbyeMs, fail, true);
    });
    const goodbye = Promise.all([publisher.withdraw(), looks.idle()]);
    await Promise.race([goodbye, tooLong]).catch((error: unknown) => {
      log.warn({ err: error }, 'mDNS announcement not withdrawn');
    });
    stopWaiting();
  }

  return {
    begin(bound) {
      if (closing !== null) return;
      listeners.push(bound);
      look();
    },
    close: () => (closing ??= Promise.resolve().then(end)),
  };
}

async function ownVersion(): Promise<string> {
  const manifest = await readFile(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(manifest) as { version: string }).version;
}
