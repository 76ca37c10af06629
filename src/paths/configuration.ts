/**
 * Formats and parses the string that names a build everywhere: in job records, the resolver, logs and the host's routes.
 *
 * A remote one is always `.esphome/.remote_builds/<dashboard_id>/<device>/config/<file>.yaml`, wherever the builds are.
 * Parsing gives a key, `null` for an ordinary configuration of the host, or an error for anything shaped like a
 * traversal. In an earlier design a malformed remote string could pass for a local one, and one side wrote where the
 * other did not look.
 */
import { TraversalError } from '../errors.js';
import {
  buildsDirName,
  esphomeDirName,
  stateDirName,
  isWindowsDevice,
  looksLikeSeparator,
  dashboardId,
  deviceFromFile,
  deviceSegment,
  fileName,
  hidesTraversal,
  nameFault,
  type DashboardId,
  type DeviceSegment,
  type FileName,
} from './segments.js';

declare const brand: unique symbol;

/** A configuration string made by {@link formatConfiguration}. */
export type Configuration = string & { readonly [brand]: 'Configuration' };

/** Identifies a build directory. */
export interface RemoteKey {
  readonly dashboardId: DashboardId;
  readonly device: DeviceSegment;
}

/** A parsed remote configuration: its key, and its path below the subtree as checked segments. */
export interface RemoteConfiguration extends RemoteKey {
  /** Directories between the subtree and the file; `['config']` in the form that {@link formatConfiguration} writes. */
  readonly folders: readonly string[];
  readonly file: FileName;
}

const prefix = `${esphomeDirName}/${buildsDirName}/`;
const maxLength = 4096;
const maxSegments = 64;
const generatedIdLength = 32;

const plainLocal = /^[a-z0-9][a-z0-9_-]{0,62}\.yaml$/;
const plainRemote =
  /^\.esphome\/\.remote_builds\/([A-Za-z0-9_-]{8,64})\/([a-z0-9][a-z0-9_-]{0,62}|_[0-9a-f]{32})\/config\/([a-z0-9][a-z0-9_-]{0,62}\.yaml)$/;
const configFolder: readonly string[] = Object.freeze(['config']);

/** Throws {@link TraversalError} for an invalid part. */
export function formatConfiguration(key: RemoteKey, file: string): Configuration {
  const id = dashboardId(key.dashboardId);
  return `${prefix}${id}/${deviceSegment(key.device)}/config/${fileName(file)}` as Configuration;
}

/** Returns a remote configuration's parts, or null for a local one; throws {@link TraversalError}. Linear in the text. */
export function readConfiguration(text: string): RemoteConfiguration | null {
  if (typeof text !== 'string') throw new TraversalError('the configuration', text, 'expected a string');
  if (plainLocal.test(text) && !isWindowsDevice(text)) return null;
  const [, plainId, plainDevice = '', plainFile] = plainRemote.exec(text) ?? [];
  if (plainId !== undefined) return remoteOf(plainId, plainDevice, plainFile);
  const segments = checkedSegments(text);
  if (text.startsWith(prefix)) return readRemote(text, segments);
  if (segments.some((segment) => fold(segment) === buildsDirName)) {
    throw new TraversalError('the configuration', text, 'it names remote builds in another spelling');
  }
  if (segments.some((segment) => fold(segment) === stateDirName)) {
    throw new TraversalError('the configuration', text, "it names the receiver's own directory");
  }
  return readFlat(segments);
}

/** Checks the parts. */
function remoteOf(id: string, device: string, file: unknown, folders = configFolder): RemoteConfiguration {
  return { dashboardId: dashboardId(id), device: deviceSegment(device), folders, file: fileName(file) };
}

/** Returns the segments, and refuses anything shaped like a traversal. */
function checkedSegments(text: string): string[] {
  const refuse = (rule: string): never => {
    throw new TraversalError('the configuration', text, rule);
  };
  if (text.length > maxLength) refuse(`over ${maxLength} characters`);
  if (/[\p{Cc}\p{Zl}\p{Zp}]/u.test(text)) refuse('it holds control characters');
  if (/\p{Cs}/u.test(text)) refuse('it holds an unpaired surrogate');
  if (/\p{Cf}/u.test(text)) refuse('it holds invisible or direction characters');
  if (/[\\:]/.test(text)) refuse('it holds a backslash or a colon');
  if (looksLikeSeparator.test(text)) refuse('it holds a character that looks like a separator');
  const segments = text.split('/');
  if (segments.length > maxSegments) refuse(`over ${maxSegments} segments`);
  for (const [index, segment] of segments.entries()) {
    if (segment === '') refuse('it is absolute or holds an empty segment');
    if (hidesTraversal(segment)) refuse('it holds an encoded separator or dot');
    const folded = fold(segment);
    if (folded === '') refuse('it holds a dot segment');
    if (/[\\/:]/.test(folded)) refuse('it holds a character that looks like a separator');
    const isFileBelow = index > 0 && index === segments.length - 1;
    if (segment.startsWith('~') && !isFileBelow) refuse('it names a home directory');
    if (isWindowsDevice(folded)) refuse('it holds a device name of Windows');
  }
  return segments;
}

/**
 * Folds a segment as a careless file system may: to compatibility form and lower case, without ignorable characters and
 * trailing dots and spaces. A dot segment becomes empty.
 */
function fold(segment: string): string {
  const bare = segment.normalize('NFKC').replace(/\p{Default_Ignorable_Code_Point}/gu, '');
  let end = bare.length;
  while (end > 0 && (bare[end - 1] === '.' || bare[end - 1] === ' ')) end -= 1;
  return bare.slice(0, end).trimStart().toLowerCase();
}

function readRemote(text: string, segments: readonly string[]): RemoteConfiguration {
  const [, , id, device, ...rest] = segments;
  const last = rest.pop();
  if (id === undefined || device === undefined || last === undefined) {
    throw new TraversalError('the configuration', text, 'expected a dashboard id, a device and a file');
  }
  for (const folder of rest) {
    const fault = nameFault(folder);
    if (fault !== null) throw new TraversalError('the folder', folder, fault);
  }
  return remoteOf(id, device, last, rest.length === 0 ? configFolder : rest);
}

/**
 * The short form `<dashboard_id>/<device>/<file>.yaml`: remote only when its three parts belong together and the id
 * has the 32 characters of Device Builder 1.26. A shorter one could be a folder of the host.
 */
function readFlat(segments: readonly string[]): RemoteConfiguration | null {
  const [id = '', device = '', last = ''] = segments;
  if (segments.length !== 3 || id.length !== generatedIdLength) return null;
  try {
    return deviceFromFile(last) === device ? remoteOf(id, device, last) : null;
  } catch {
    return null;
  }
}
