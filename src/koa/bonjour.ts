/**
 * The option `announce`, and the default publisher on top of `bonjour-service`, an optional package that is loaded only
 * when an announcement is requested. As of version 1.4 the package has four faults: an unhandled error of its socket ends
 * the process; it announces every address of the machine; on a name conflict it sends a goodbye for the other machine; and
 * it cannot change an announcement. So each announcement gets its own responder, with our records.
 */
import { networkInterfaces } from 'node:os';

import type BonjourClass from 'bonjour-service';

import { ReceiverError, quote, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { Publisher } from './announce.js';
import type { Announcement } from './announcement.js';
import type { AnnounceOptions } from './receiver-options.js';

export interface BonjourOptions {
  readonly log: Log;
  /** The IPv4 address of the only adapter to use. Default: the adapter of the default route. */
  readonly via?: string | undefined;
  /** The UDP port. Default: 5353; tests use another. */
  readonly port?: number;
}

/** `taken`: another machine uses the name. `ended`: a newer request replaced this one. */
type PublishOutcome = 'announced' | 'taken' | 'ended';

type Library = typeof BonjourClass;
type Service = ReturnType<BonjourClass['publish']>;
type ServiceRecord = ReturnType<Service['records']>[number];

const maxNames = 20;
const recordTtlSeconds = 120;

/** Throws `OPTIONS` when the package is not installed. */
export async function loadBonjour(
  load: () => Promise<{ readonly default: Library }> = () => import('bonjour-service'),
): Promise<(options: BonjourOptions) => Publisher> {
  try {
    const { default: Bonjour } = await load();
    return (options) => createPublisher(Bonjour, options);
  } catch (cause) {
    if (systemCode(cause)?.endsWith('MODULE_NOT_FOUND') !== true) throw cause;
    const message = 'option "announce" needs a package that is not installed: npm install bonjour-service';
    throw new ReceiverError('OPTIONS', message, {}, { cause });
  }
}

function createPublisher(Bonjour: Library, options: BonjourOptions): Publisher {
  let current: ReturnType<typeof startResponder> | null = null;
  let nameNumber = 1;
  /** The number of the newest request; an older one stops. */
  let newest = 0;

  return {
    async publish(announcement) {
      const own = ++newest;
      if (options.via !== undefined) checkAdapter(options.via);
      // No goodbye: the next announcement replaces this one in every cache.
      await current?.end({ goodbye: false });
      while (nameNumber <= maxNames) {
        if (own !== newest) throw new ReceiverError('CANCELLED', 'the announcement was withdrawn');
        const instance = nameNumber === 1 ? announcement.instance : `${announcement.instance}-${nameNumber}`;
        const responder = startResponder(Bonjour, { ...announcement, instance }, options);
        current = responder;
        const outcome = await responder.outcome.catch(async (error: unknown) => {
          await responder.end({ goodbye: false });
          throw error;
        });
        if (outcome === 'announced') return instance;
        await responder.end({ goodbye: false });
        if (outcome === 'taken') {
          options.log.warn({ instance }, 'mDNS name is taken by another machine');
          nameNumber++;
        }
      }
      nameNumber = 1;
      throw new ReceiverError('STATE', `mDNS names are taken: tried ${maxNames}`, { maxNames });
    },
    async withdraw() {
      newest++;
      await current?.end({ goodbye: true });
    },
  };
}

/** If no adapter had the address, the system would use the network of the default route instead. */
function checkAdapter(via: string): void {
  const addresses = Object.values(networkInterfaces()).flatMap((entries = []) => entries);
  if (addresses.some(({ address }) => address === via)) return;
  throw new ReceiverError('STATE', `no network adapter has the address ${quote(via)}`, { via });
}

function startResponder(Bonjour: Library, announcement: Announcement, { via, port, log }: BonjourOptions) {
  const { type, instance: name, host, port: srvPort, txt } = announcement;
  const warnError = (error: unknown): void => log.warn({ err: error }, 'mDNS error');
  // With `interface` alone, the socket would bind to that address and receive no multicast.
  const network = via === undefined ? {} : { interface: via, bind: '0.0.0.0' };
  // The constructor passes its options to multicast-dns, although its types do not say so.
  const bonjour = new Bonjour({ ...network, ...(port !== undefined && { port }) }, warnError);
  let service: Service | undefined;
  let finish = (_outcome: PublishOutcome): void => {};
  let ending: Promise<void> | null = null;
  let isEnding = false;

  const outcome = new Promise<PublishOutcome>((resolve, reject) => {
    finish = resolve;
    const socket = bonjour['server'].mdns as NodeJS.EventEmitter;
    socket.on('error', (error) => (service?.published === true ? warnError(error) : reject(error)));
    socket.on('warning', (error) => log.debug({ err: error }, 'mDNS warning'));
    // The probe for a conflict takes up to a second.
    service = bonjour.publish({ name, type, host, port: srvPort, txt, probe: true });
    const records = recordsOf(service, announcement);
    service.records = () =>
      records.filter((record) => !isEnding || !isShared(record)).map((record) => ({ ...record }));
    // Called on a conflict: the library's own `stop` would send a goodbye for the other machine.
    service.stop = () => resolve('taken');
    service.once('up', () => resolve('announced'));
  });

  return {
    outcome,
    end({ goodbye }: { readonly goodbye: boolean }): Promise<void> {
      finish('ended');
      isEnding = true;
      ending ??= new Promise((resolve) => {
        const close = (): void => bonjour.destroy(resolve);
        // Before the announcement there is nothing to take back, and the name may belong to another machine.
        if (goodbye && service?.published === true) bonjour.unpublishAll(close);
        else close();
      });
      return ending;
    },
  };
}

/** The record that lists the service type belongs to all services of the type, so no single one takes it back. */
function isShared({ name }: ServiceRecord): boolean {
  return name.startsWith('_services.');
}

/**
 * The library's records with our addresses. All but the shared ones have the cache-flush bit (RFC 6762, 10.2), which
 * makes a listener drop what it cached before.
 */
function recordsOf(service: Service, { addresses }: Announcement): ServiceRecord[] {
  const unique = service
    .records()
    .filter(({ type }) => type === 'SRV' || type === 'TXT')
    .map((record) => ({ ...record, flush: true }));
  const shared = service.records().filter(({ type }) => type === 'PTR');
  const hosts = addresses.map((data) => {
    const type = data.includes(':') ? ('AAAA' as const) : ('A' as const);
    return { name: service.host, type, ttl: recordTtlSeconds, data, flush: true };
  });
  return [...shared, ...unique, ...hosts];
}

/** Throws `OPTIONS` when `bonjour-service` is needed and not installed. */
export async function resolveAnnounce(option: true | AnnounceOptions, log: Log) {
  const { httpPort, interface: via, publisher } = option === true ? {} : option;
  return { httpPort, via, publisher: publisher ?? (await loadBonjour())({ via, log }) };
}
