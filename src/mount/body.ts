/** Reads the small JSON bodies of the admin routes. Hosts have body parsers of their own; none is relied on. */
import type { Context } from 'koa';

const maxBodyBytes = 64 * 1024;

/** The request's JSON object; an absent body is an empty one. Answers 400 or 413 by throwing as `ctx.throw` does. */
export async function readJsonObject(ctx: Context): Promise<Readonly<Record<string, unknown>>> {
  const parsed = (ctx.request as { body?: unknown }).body ?? parse(ctx, await readAll(ctx));
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    ctx.throw(400, 'a JSON object is needed');
  return parsed as Record<string, unknown>;
}

async function readAll(ctx: Context): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of ctx.req as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > maxBodyBytes) ctx.throw(413, `over ${maxBodyBytes} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

function parse(ctx: Context, text: string): unknown {
  if (text === '') return {};
  try {
    return JSON.parse(text);
  } catch {
    return ctx.throw(400, 'the body is not JSON');
  }
}
