import { createReadStream, createWriteStream } from 'node:fs';
import { rename, stat } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const LIMIT = 250 * 1024 * 1024;

/** Where a file of this name lies, on a volume that all pods share (app_volume_mounts); undefined for a name that is none. */
async function place(params) {
  const { name } = await params;
  return /^[a-z0-9][a-z0-9.-]{0,99}$/.test(name) ? path.join(/* turbopackIgnore: true */ process.cwd(), 'data/uploads', name) : undefined;
}

export async function PUT(request, { params }) {
  const file = await place(params);
  const length = Number(request.headers.get('content-length'));
  if (!file || !length) return new Response('name and length, please', { status: 400 });
  if (length > LIMIT) return new Response('too long', { status: 413 });
  // Half of a file never has the name: one that was cut begins anew.
  await pipeline(Readable.fromWeb(request.body), createWriteStream(`${file}_`));
  await rename(`${file}_`, file);
  return Response.json({ bytes: length, pod: process.env.POD_NAME }, { status: 201 });
}

export async function GET(_request, { params }) {
  const file = await place(params);
  const found = file && (await stat(file).catch(() => undefined));
  if (!found) return new Response('no such file', { status: 404 });
  return new Response(Readable.toWeb(createReadStream(file)), {
    headers: { 'Content-Type': 'application/octet-stream', 'Content-Length': String(found.size) },
  });
}
