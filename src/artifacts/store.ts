/**
 * Stores the packed results of jobs, so that a later build of the same device cannot change what an earlier job
 * delivers, and a download starts at once and can be repeated.
 *
 * An archive counts only with its facts file beside it, which is written last, so a crash never leaves a false result.
 */
import { createReadStream } from 'node:fs';
import { copyFile, link, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import * as z from 'zod';

import { makeDirectory } from '../disk/atomic-write.js';
import { nullUnlessRecord, readJsonFile, writeJsonFile } from '../disk/json-file.js';
import { namesIn } from '../disk/names.js';
import { removeTree } from '../disk/remove.js';
import { makerOf, temporaryName } from '../disk/names.js';
import { ReceiverError, quote, systemCode } from '../errors.js';
import type { BuildArtifacts } from './collect.js';
import { packArtifacts, type ArtifactFacts } from './pack.js';

export interface StoredArtifacts extends ArtifactFacts {
  /** The archive in large pieces. Can be read repeatedly. */
  read(): AsyncIterable<Buffer>;
}

const pieceBytes = 256 * 1024;
/** Ids are the receiver's own UUIDs; they are checked because they name files. */
const idShape = /^[0-9a-f-]{36}$/;

const factsSchema = z.object({
  bytes: z.int().nonnegative(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  firmwareOffset: z.enum(['0x10000', '0x0']),
});
const factsFormat = { maxBytes: 4_096, parse: factsSchema.parse };

/** Creates `directory` when missing. No one else may use it. */
export function createArtifactStore(directory: string) {
  const archiveOf = (id: string): string => join(directory, `${checked(id)}.tar.gz`);
  const factsOf = (id: string): string => join(directory, `${checked(id)}.json`);

  /** Stores the archive that `make` writes to `file`. */
  async function keep(id: string, make: (file: string) => Promise<ArtifactFacts>): Promise<ArtifactFacts> {
    const [archive, factsFile] = [archiveOf(id), factsOf(id)];
    const unfinished = join(directory, temporaryName());
    await makeDirectory(directory);
    try {
      const facts = await make(unfinished);
      await rm(factsFile, { force: true });
      await rename(unfinished, archive);
      await writeJsonFile(factsFile, facts);
      return facts;
    } finally {
      await rm(unfinished, { force: true });
    }
  }

  async function completeFacts(id: string): Promise<ArtifactFacts> {
    const facts = await readJsonFile(factsOf(id), factsFormat).catch(nullUnlessRecord);
    const archive = archiveOf(id);
    const found = facts && (await stat(archive).catch(notFound));
    if (facts !== null && found?.size === facts.bytes) return facts;
    throw new ReceiverError('NOT_FOUND', 'the files of this job are no longer stored', { archive });
  }

  return {
    /** Packs a build and stores it under the job's id. Throws `ARTIFACTS` and system errors; it then stores nothing. */
    put: (id: string, build: BuildArtifacts): Promise<ArtifactFacts> =>
      keep(id, (file) => packArtifacts(build, file)),
    /**
     * Stores the result of `from` under another id as well; the two can be removed independently. Uses hard links where
     * possible, which take no space. Throws `NOT_FOUND` like `open`, and system errors.
     */
    async copy(from: string, id: string): Promise<ArtifactFacts> {
      const facts = await completeFacts(from);
      return keep(id, async (file) => {
        await linkOrCopy(archiveOf(from), file).catch(notFound);
        return facts;
      });
    },
    /** Throws `NOT_FOUND` when the result is missing or incomplete. */
    async open(id: string): Promise<StoredArtifacts> {
      const facts = await completeFacts(id);
      return Object.freeze({
        ...facts,
        read: () => createReadStream(archiveOf(id), { highWaterMark: pieceBytes }),
      });
    },
    /** Does nothing if there is no result. A running download still completes. */
    async remove(id: string): Promise<void> {
      await rm(factsOf(id), { force: true });
      await rm(archiveOf(id), { force: true });
    },
    /**
     * Removes results of unknown jobs, except unfinished ones. It calls `known` after listing the directory, so that it
     * does not remove a result that is stored meanwhile.
     */
    async sweep(known: () => Promise<ReadonlySet<string>>): Promise<void> {
      const names = (await namesIn(directory)).filter((name) => makerOf(name) === null);
      const ids = await known();
      for (const name of names) {
        if (!ids.has(name.replace(/\.(?:tar\.gz|json)$/, ''))) await removeTree(join(directory, name));
      }
    },
  };
}

/** An archive never changes, so a hard link is as good as a copy. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (systemCode(error) === 'ENOENT') throw error;
    await copyFile(from, to);
  }
}

function checked(id: string): string {
  if (idShape.test(id)) return id;
  throw new ReceiverError('NOT_FOUND', `there is no job ${quote(id)}`);
}

function notFound(error: unknown): never {
  if (systemCode(error) !== 'ENOENT') throw error;
  throw new ReceiverError('NOT_FOUND', 'the files of this job are no longer stored', {}, { cause: error });
}
