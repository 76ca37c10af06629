/**
 * The output of `serve`: reports on stdout, as text for people or as one JSON object per line for programs, and the log on
 * stderr. Names that a peer chose are quoted, and JSON escapes control characters, so that neither can control a terminal.
 */
import type { Writable } from 'node:stream';

import { quote, isReceiverError, messageOf } from '../errors.js';
import type { Log } from '../log.js';
import { pinPictures, pinText } from '../protocol/fingerprint.js';
import type { LaneView, ReceiverEvent } from '../views.js';

/** What the builds of this machine depend on. */
export interface MachineFacts {
  /** The version of its ESPHome; null when that does not run. */
  readonly esphome: string | null;
  /** The version of the Python that installs other releases; null when there is none. */
  readonly python: string | null;
  readonly slots: number;
  /** Null when it is unknown. */
  readonly freeBytes: number | null;
}

interface ListeningFacts extends MachineFacts {
  readonly host: string;
  readonly port: number;
  readonly pin: string;
  /** The lanes after the first. */
  readonly furtherLanes: readonly LaneView[];
}

export interface ServeReport {
  warning(message: string): void;
  listening(facts: ListeningFacts): void;
  pairingKey(key: string, validMs: number): void;
  /** The key has expired without a pairing. */
  lapsed(): void;
  event(event: ReceiverEvent): void;
}

/** Each line is an object with `event`: `warning`, `listening`, `pairing_key`, `pairing_lapsed`, `paired`, `revoked`, `job`. */
export function jsonReport(out: Writable): ServeReport {
  const line = (object: object): void => void out.write(`${JSON.stringify(object)}\n`);
  return {
    warning: (message) => line({ event: 'warning', message }),
    listening: (facts) => line({ event: 'listening', ...facts }),
    pairingKey: (key, validMs) => line({ event: 'pairing_key', key, validMs }),
    lapsed: () => line({ event: 'pairing_lapsed' }),
    event(event) {
      if (event.type === 'approved') {
        const { dashboardId, label, pin } = event.peer;
        line({ event: 'paired', dashboardId, label, pin });
      } else if (event.type === 'revoked') {
        line({ event: 'revoked', dashboardId: event.dashboardId });
      } else if (event.type === 'state') {
        line({ event: 'job', ...event.job });
      }
    },
  };
}

/** Shows the pin as pictures, as their names and in full. */
export function textReport(out: Writable): ServeReport {
  const line = (text: string): void => void out.write(`${text}\n`);
  return {
    warning: (message) => line(`Warning: ${message}`),
    listening({ host, port, pin, esphome, python, slots, freeBytes, furtherLanes }) {
      const pictures = pinPictures(pin);
      line(`Listening for dashboards on ${host}:${port}`);
      const facts = [
        esphome === null ? 'an ESPHome that does not run' : `ESPHome ${esphome}`,
        python === null ? 'no Python for other releases' : `Python ${python} for other releases`,
        slots === 1 ? '1 build at a time' : `${slots} builds at a time`,
        freeBytes === null ? 'disk space unknown' : `${(freeBytes / 1e9).toFixed(1)} GB free`,
      ];
      line(`Builds with: ${facts.join(', ')}`);
      line(`Fingerprint: ${pictures.map(({ emoji }) => emoji).join(' ')}`);
      line(`             ${pictures.map(({ name }) => name).join(', ')}`);
      line(`             ${pinText(pin)}`);
      for (const lane of furtherLanes) {
        const where = lane.port === null ? `not listening (${lane.fault})` : `${host}:${lane.port}`;
        line(
          `Lane ${lane.number}:      ${where}  ${lane.fingerprint?.pictures.map(({ emoji }) => emoji).join(' ') ?? ''}`,
        );
      }
    },
    pairingKey(key, validMs) {
      line(`Pairing key: ${key}   (pairs one dashboard, valid for ${validMs / 60_000} minutes)`);
    },
    lapsed: () => line('Nobody paired in time. Start again for a new key.'),
    event(event) {
      if (event.type === 'approved') line(`Paired with ${quote(event.peer.label)}`);
      else if (event.type === 'revoked') line(`Revoked ${event.dashboardId}`);
      else if (event.type === 'state') {
        const { file, state, errorMessage } = event.job;
        line(`${quote(file)}: ${state}${errorMessage && ` (${errorMessage})`}`);
      }
    },
  };
}

function write(level: string, facts: Readonly<Record<string, unknown>>, text: string): void {
  const shown = Object.keys(facts).length === 0 ? '' : ` ${JSON.stringify(facts, readable)}`;
  process.stderr.write(`${new Date().toISOString()} ${level} ${text}${shown}\n`);
}

function readable(_key: string, value: unknown): unknown {
  if (!(value instanceof Error)) return value;
  const { stack, cause } = value;
  const facts = isReceiverError(value) ? { code: value.code, ...value.facts } : {};
  return { message: messageOf(value), ...facts, stack, ...(cause !== undefined && { cause }) };
}

export const stderrLog: Log = Object.freeze({
  debug() {},
  info: (facts, text) => write('info', facts, text),
  warn: (facts, text) => write('warn', facts, text),
  error: (facts, text) => write('error', facts, text),
} satisfies Log);
