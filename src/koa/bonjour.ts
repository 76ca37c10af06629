/**
 * The publisher that speaks mDNS by itself, with `bonjour-service`. That package is optional and is loaded only when
 * somebody asks for an announcement.
 *
 * What it leaves to its user, as of 1.4: an error of its socket that nobody listens to ends the process; it announces
 * every address of the machine; it says goodbye in the name of another one that it finds under its own name; and it
 * cannot change what it has announced. So each announcement gets a responder of its own, with records of ours.
 */
import { networkInterfaces } from 'node:os';

import type BonjourClass from 'bonjour-service';

import { ReceiverError, systemCode } from '../errors.js';
import type { Log } from '../log.js';
import type { Publisher } from './announce.js';
import type { Announcement } from './announcement.js';
import type { AnnounceOptions } from './receiver-options.js';

export interface BonjourOptions {
  readonly log: Log;
  /** The IPv4 address of the one network to speak in. Default: the one of the default route. */
  readonly via?: string | undefined;
  /** The UDP port; another one than the default, 5353, is for tests. */
  readonly port?: number;
}

/** `taken`: another machine answers to that name. `ended`: nobody wants it any more. */
type PublishOutcome = 'announced' | 'taken' | 'ended';

interface Responder {
  readonly outcome: Promise<PublishOutcome>;
  end(how: { readonly goodbye: boolean }): Promise<void>;
}

type Library = typeof BonjourClass;
type Service = ReturnType<BonjourClass['publish']>;
type ServiceRecord = ReturnType<Service['records']>[number];

const maxNames = 20;
const recordTtlSeconds = 120;

/** Loads the library. Throws `OPTIONS` when it is not installed. */
export async function loadBonjour(
  load: () => Promise<{ readonly default: Library }> = () => import('bonjour-service'),
): Promise<(options: BonjourOptions) => Publisher> {
  try {
    const { default: Bonjour } = await load();
    return (options) => createPublisher(Bonjour, options);
  } catch (cause) {
    if (systemCode(cause)?.endsWith('MODULE_NOT_FOUND') !== true) throw cause;
    const message = 'to be announced, the receiver needs a package: npm install bonjour-service';
    throw new ReceiverError('OPTIONS', message, {}, { cause });
  }
}

function createPublisher(Bonjour: Library, options: BonjourOptions): Publisher {
  let current: Responder | null = null;
  let nameNumber = 1;
  /** Counts what is wished; a wish that is not the last any more ends. */
  let wish = 0;

  return {
    async publish(announcement) {
      const own = ++wish;
      if (options.via !== undefined) checkAdapter(options.via);
      // Without a goodbye: what is announced next takes the place of it in everybody's memory.
      await current?.end({ goodbye: false });
      while (nameNumber <= maxNames) {
        if (own !== wish) throw new ReceiverError('CANCELLED', 'the announcement was withdrawn');
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
      throw new ReceiverError('STATE', 'all names for the announcement are taken', { maxNames });
    },
    async withdraw() {
      wish++;
      await current?.end({ goodbye: true });
    },
  };
}

/** Without such an adapter, the system would speak in the network of the default route instead. */
function checkAdapter(via: string): void {
  const addresses = Object.values(networkInterfaces()).flatMap((entries = []) => entries);
  if (addresses.some(({ address }) => address === via)) return;
  throw new ReceiverError('STATE', 'no network adapter has the address in which to announce', { via });
}

function startResponder(
  Bonjour: Library,
  announcement: Announcement,
  { via, port, log }: BonjourOptions,
): Responder {
  const { type, instance: name, host, port: srvPort, txt } = announcement;
  const onFault = (error: unknown): void => log.warn({ err: error }, 'mDNS error');
  // With an interface alone, the socket would be bound to its address and hear no multicast.
  const network = via === undefined ? {} : { interface: via, bind: '0.0.0.0' };
  // Its options are those of multicast-dns, whatever its types say.
  const bonjour = new Bonjour({ ...network, ...(port !== undefined && { port }) }, onFault);
  let service: Service | undefined;
  let finish = (_outcome: PublishOutcome): void => {};
  let ending: Promise<void> | null = null;
  let isEnding = false;

  const outcome = new Promise<PublishOutcome>((resolve, reject) => {
    finish = resolve;
    const socket = bonjour['server'].mdns as NodeJS.EventEmitter;
    socket.on('error', (error) => (service?.published === true ? onFault(error) : reject(error)));
    socket.on('warning', (error) => log.debug({ err: error }, 'mDNS warning'));
    // It looks first whether the name is taken, which takes up to a second.
    service = bonjour.publish({ name, type, host, port: srvPort, txt, probe: true });
    const records = recordsOf(service, announcement);
    service.records = () =>
      records.filter((record) => !isEnding || !isOfAll(record)).map((record) => ({ ...record }));
    // What it does about a name that is taken: its own `stop` would say goodbye for the other one.
    service.stop = () => resolve('taken');
    service.once('up', () => resolve('announced'));
  });

  return {
    outcome,
    end({ goodbye }) {
      finish('ended');
      isEnding = true;
      ending ??= new Promise((resolve) => {
        const close = (): void => bonjour.destroy(resolve);
        // Before it is announced there is nothing to take back, and the name may be somebody else's.
        if (goodbye && service?.published === true) bonjour.unpublishAll(close);
        else close();
      });
      return ending;
    },
  };
}

/** That there are such services at all is said in the name of all of them, and not taken back by one. */
function isOfAll({ name }: ServiceRecord): boolean {
  return name.startsWith('_services.');
}

/**
 * The library's records with our addresses. All but the shared ones bear the flush bit (RFC 6762, 10.2), by which
 * a listener forgets what it heard before.
 */
function recordsOf(service: Service, { addresses }: Announcement): ServiceRecord[] {
  const unique = service
    .records()
    .filter(({ type }) => type === 'SRV' || type === 'TXT')
    .map((record) => ({ ...record, flush: true }));
  const shared = service.records().filter(({ type }) => type === 'PTR');
  const places = addresses.map((data) => {
    const type = data.includes(':') ? ('AAAA' as const) : ('A' as const);
    return { name: service.host, type, ttl: recordTtlSeconds, data, flush: true };
  });
  return [...shared, ...unique, ...places];
}

/** What the option `announce` comes to. */
export interface ResolvedAnnounce {
  readonly httpPort: number | undefined;
  readonly via: string | undefined;
  makePublisher(log: Log): Publisher;
}

/** Null when nothing is to be announced. Throws `OPTIONS` when the library is needed and not installed. */
export async function resolveAnnounce(option: boolean | AnnounceOptions): Promise<ResolvedAnnounce | null> {
  if (option === false) return null;
  const { httpPort, interface: via, publisher } = option === true ? {} : option;
  if (publisher !== undefined) return { httpPort, via, makePublisher: () => publisher };
  const create = await loadBonjour();
  return { httpPort, via, makePublisher: (log) => create({ via, log }) };
}
