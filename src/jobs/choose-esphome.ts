/**
 * Which ESPHome builds a job: the installed one, if it is the one that the job asks for.
 *
 * A build by another version than the user chose is not a success: the firmware would differ from what the user's
 * own dashboard makes. So the job fails, in words that let the client build by itself. The version is asked anew
 * for every job, because an upgrade while the server runs is ordinary.
 */
import { ReceiverError, quote } from '../errors.js';
import { findEsphome, type EsphomeCommand, type FindOptions } from '../esphome/command.js';
import { probeVersion } from '../esphome/version.js';

export interface ChosenEsphome {
  readonly command: EsphomeCommand;
  readonly version: string;
}

/** `wanted` is a version, or empty for any. Throws `PROVISION` with a sentence for people; `CANCELLED` on abort. */
export type ChooseEsphome = (wanted: string, signal: AbortSignal) => Promise<ChosenEsphome>;

export interface InstalledOptions extends FindOptions {
  /** The environment in which the command is asked for its version. */
  readonly probeEnv: Readonly<Record<string, string>>;
}

/** Knows the installed ESPHome only. */
export function chooseInstalled({ option, env, probeEnv }: InstalledOptions): ChooseEsphome {
  return async (wanted, signal) => {
    const command = await findEsphome({ option, env });
    if (command === null) {
      throw new ReceiverError('PROVISION', 'this build server has no ESPHome installed', { option });
    }
    const version = await probeVersion(command, { env: probeEnv, signal });
    if (wanted !== '' && wanted !== version) {
      const message = `this build server has ESPHome ${version} and cannot install ${quote(wanted)}`;
      throw new ReceiverError('PROVISION', message, { wanted, version });
    }
    return { command, version };
  };
}
