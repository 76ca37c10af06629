/**
 * What the two sides say to each other before a session: the intent, who the offloader is, and the answer.
 *
 * All three come from a stranger, and clients of different age leave fields out; so a field of the wrong type is
 * read as absent, and nothing here is refused (Device Builder 1.26). Checking the dashboard id is the business of
 * whoever makes a path or a table key of it.
 */
import * as z from 'zod';

import { isVersion } from '../esphome/version.js';
import { intents, type Intent } from './constants.js';
import { decodeObject, encodeObject, type WireObject } from './wire-json.js';

const maxNameLength = 128;
const maxPort = 65_535;

/** The third handshake message, normalised. */
export interface IntentMessage {
  /** As it came: neither trimmed nor checked. '' when absent. */
  readonly dashboardId: string;
  /** Trimmed, at most 128 characters, as is `friendlyName`. */
  readonly label: string;
  readonly friendlyName: string;
  readonly haAddon: boolean;
  /** The label was made by the offloader's program and not by a person. */
  readonly labelAuto: boolean;
  /** Absent when empty. */
  readonly pairingKey?: string;
  /** The port at which the offloader can be called back, 0 when it has none. */
  readonly connectBackPort: number;
  /** Of a receiver that calls back: the port at which it is to be found. Absent when unusable. */
  readonly peerLinkPort?: number;
}

/** The answer to an intent as it stands on the wire. */
export interface IntentAnswer {
  /** One of `intentResponses`; another word may come from a newer receiver. */
  readonly intent_response: string;
  /** One of `rejectReasons`; goes with `rejected`, and with `pending` unless that answers a pairing request. */
  readonly reason?: string | undefined;
  /** The receiver's own version, '' when unknown. */
  readonly esphome_version: string;
  readonly auto_provision_supported: boolean;
  readonly reset_build_env_supported: boolean;
  readonly friendly_name: string;
  readonly ha_addon: boolean;
  /** Only in the answer to a preview, and only when a pairing key is asked for. */
  readonly requires_pairing_key?: true | undefined;
}

const intentAnswer: z.ZodType<IntentAnswer> = z.object({
  intent_response: z.string(),
  reason: z.string().optional().catch(undefined),
  esphome_version: z.string().refine(isVersion).catch(''),
  auto_provision_supported: z.boolean().catch(false),
  reset_build_env_supported: z.boolean().catch(false),
  friendly_name: z.unknown().optional().transform(displayName),
  ha_addon: z.boolean().catch(false),
  requires_pairing_key: z.literal(true).optional().catch(undefined),
});

/** The payload of the first handshake message. */
export function encodeIntent(intent: Intent): Buffer {
  return encodeObject({ intent });
}

/** The intent in the first handshake message; undefined when it is missing or unknown: the answer is `bad_intent`. */
export function decodeIntent(payload: Buffer): Intent | undefined {
  const intent = decodeObject(payload)?.['intent'];
  return typeof intent === 'string' && Object.hasOwn(intents, intent) ? (intent as Intent) : undefined;
}

/** The payload of the third handshake message. Ports and keys that are absent are left out. */
export function encodeIntentMessage(hello: Partial<IntentMessage>): Buffer {
  return encodeObject({
    dashboard_id: hello.dashboardId,
    label: hello.label,
    friendly_name: hello.friendlyName,
    ha_addon: hello.haAddon,
    label_auto: hello.labelAuto,
    pairing_key: hello.pairingKey,
    connect_back_port: hello.connectBackPort === 0 ? undefined : hello.connectBackPort,
    peer_link_port: hello.peerLinkPort,
  });
}

/** Reads the third handshake message. What is no JSON object counts as an empty one. */
export function decodeIntentMessage(payload: Buffer): IntentMessage {
  const fields: WireObject = decodeObject(payload) ?? {};
  const pairingKey = textOrEmpty(fields['pairing_key']);
  const peerLinkPort = portOrZero(fields['peer_link_port']);
  return {
    dashboardId: textOrEmpty(fields['dashboard_id']),
    label: displayName(fields['label']),
    friendlyName: displayName(fields['friendly_name']),
    haAddon: fields['ha_addon'] === true,
    labelAuto: fields['label_auto'] === true,
    connectBackPort: portOrZero(fields['connect_back_port']),
    ...(pairingKey === '' ? {} : { pairingKey }),
    ...(peerLinkPort === 0 ? {} : { peerLinkPort }),
  };
}

/** Reads the answer to an intent; undefined when it is not one. */
export function decodeAnswer(plaintext: Buffer): IntentAnswer | undefined {
  return intentAnswer.safeParse(decodeObject(plaintext)).data;
}

function textOrEmpty(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function displayName(value: unknown): string {
  return Array.from(textOrEmpty(value).trim()).slice(0, maxNameLength).join('');
}

function portOrZero(value: unknown): number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= maxPort
    ? (value as number)
    : 0;
}
