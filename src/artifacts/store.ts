/**
 * Keeps the packed results of jobs, so that a later build of the same device cannot change what an earlier job
 * delivers, and a download starts at once and can be repeated.
 *
 * An archive counts once its facts lie beside it, and they are written last; what a crash leaves behind is never
 * taken for a result.
 */
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { z } from 'zod';

import { writeAtomic } from '../disk/atomic-write.js';
import { readRegular } from '../disk/open-regular.js';
import { ReceiverError, quote, systemCode } from '../errors.js';
import { parseJson } from '../esphome/json-object.js';
import type { FirmwareOffset } from '../esphome/platforms.js';
import type { BuildArtifacts } from './collect.js';
import { packArtifacts } from './pack.js';

export interface ArtifactFacts {
  /** Of the archive, a gzip tar. */
  readonly bytes: number;
  /** Lower-case hex. */
  readonly sha256: string;
  readonly firmwareOffset: FirmwareOffset;
}

export interface StoredArtifacts extends ArtifactFacts {
  /** The archive in pieces of 32 KiB, as often as it is asked for. */
  read(): AsyncIterable<Buffer>;
}

export interface ArtifactStore {
  /** Packs a build and keeps it under the job's id. Throws `ARTIFACTS` and system errors; nothing is kept then. */
  put(id: string, build: BuildArtifacts): Promise<ArtifactFacts>;
  /** Throws `NOT_FOUND` when there is none or it is not whole. */
  open(id: string): Promise<StoredArtifacts>;
  /** Nothing there is fine. A download that runs gets its bytes to the end. */
  remove(id: string): Promise<void>;
  /** Removes whatever belongs to none of these ids: results of forgotten jobs, and what a crash left. */
  sweep(known: ReadonlySet<string>): Promise<void>;
}

const pieceBytes = 32 * 1024;
const maxFactsBytes = 4_096;
/** Ids are our own UUIDs; they are checked because they name files. */
const idShape = /^[0-9a-f-]{36}$/;

const factsSchema = z.object({
  bytes: z.int().nonnegative(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  firmwareOffset: z.enum(['0x10000', '0x0']),
});

/** Keeps them in `directory`, which is made when missing and belongs to this store alone. */
export function createArtifactStore(directory: string): ArtifactStore {
  const archiveOf = (id: string): string => join(directory, `${checked(id)}.tar.gz`);
  const factsOf = (id: string): string => join(directory, `${checked(id)}.json`);

  return {
    async put(id, build) {
      const archive = archiveOf(id);
      await mkdir(directory, { recursive: true, mode: 0o700 });
      const unfinished = join(directory, `${randomUUID()}.tmp`);
      try {
        const packed = await packArtifacts(build, unfinished);
        const facts: ArtifactFacts = Object.freeze({ ...packed, firmwareOffset: build.firmwareOffset });
        await rm(factsOf(id), { force: true });
        await rename(unfinished, archive);
        await writeAtomic(factsOf(id), JSON.stringify(facts));
        return facts;
      } catch (error) {
        await rm(unfinished, { force: true });
        throw error;
      }
    },
    async open(id) {
      const facts = await readFacts(factsOf(id));
      const archive = archiveOf(id);
      const { size } = await stat(archive).catch(notFound);
      if (size !== facts.bytes)
        throw new ReceiverError('NOT_FOUND', 'the stored files are not whole', { archive });
      return Object.freeze({
        ...facts,
        read: () => createReadStream(archive, { highWaterMark: pieceBytes }),
      });
    },
    async remove(id) {
      await rm(factsOf(id), { force: true });
      await rm(archiveOf(id), { force: true });
    },
    async sweep(known) {
      for (const name of await readdir(directory)) {
        if (!known.has(name.replace(/\.(?:tar\.gz|json)$/, ''))) {
          await rm(join(directory, name), { recursive: true, force: true });
        }
      }
    },
  };
}

function checked(id: string): string {
  if (idShape.test(id)) return id;
  throw new ReceiverError('NOT_FOUND', `there is no job ${quote(id)}`);
}

async function readFacts(path: string): Promise<ArtifactFacts> {
  const bytes = await readRegular(path, maxFactsBytes).catch(notFound);
  const read = factsSchema.safeParse(parseJson(bytes));
  if (read.success) return read.data;
  throw new ReceiverError('NOT_FOUND', 'what is stored about the files cannot be read', { path });
}

function notFound(error: unknown): never {
  if (systemCode(error) !== 'ENOENT') throw error;
  throw new ReceiverError('NOT_FOUND', 'the files of this job are not kept any more', {}, { cause: error });
}
