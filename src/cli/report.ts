/**
 * What `serve` prints: for people, or one JSON object a line for programs. Names that a peer chose are quoted, so
 * that they cannot draw on a terminal.
 */
import type { Writable } from 'node:stream';

import { quote } from '../errors.js';
import { pinPictures, pinText } from '../peers/pin.js';
import type { ReceiverEvent } from '../core.js';

export interface Report {
  listening(at: { readonly host: string; readonly port: number; readonly pin: string }): void;
  pairingKey(key: string, validMs: number): void;
  /** Nobody paired in time. */
  lapsed(): void;
  event(event: ReceiverEvent): void;
}

/** Each line is an object with `event`: `listening`, `pairing_key`, `pairing_lapsed`, `paired`, `revoked`, `job`. */
export function jsonReport(out: Writable): Report {
  const line = (object: object): void => void out.write(`${JSON.stringify(object)}\n`);
  return {
    listening: ({ host, port, pin }) => line({ event: 'listening', host, port, pin }),
    pairingKey: (key, validMs) => line({ event: 'pairing_key', key, valid_ms: validMs }),
    lapsed: () => line({ event: 'pairing_lapsed' }),
    event(event) {
      if (event.type === 'approved') {
        const { dashboardId, label, pin } = event.peer;
        line({ event: 'paired', dashboard_id: dashboardId, label, pin });
      } else if (event.type === 'revoked') {
        line({ event: 'revoked', dashboard_id: event.dashboardId });
      } else if (event.type === 'state') {
        line({ event: 'job', ...event.job });
      }
    },
  };
}

/** Sentences, with the pin as pictures, their names and in full. */
export function textReport(out: Writable): Report {
  const line = (text: string): void => void out.write(`${text}\n`);
  return {
    listening({ host, port, pin }) {
      const pictures = pinPictures(pin);
      line(`Listening for dashboards on ${host}:${port}`);
      line(`Fingerprint: ${pictures.map(({ emoji }) => emoji).join(' ')}`);
      line(`             ${pictures.map(({ name }) => name).join(', ')}`);
      line(`             ${pinText(pin)}`);
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
