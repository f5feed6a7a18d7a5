// Completes .next/standalone into all that an image needs: Next leaves out its own static files, and does not know server.js.
import { cpSync, renameSync } from 'node:fs';
import trace from 'next/dist/compiled/@vercel/nft/index.js';

const target = '.next/standalone';
renameSync(`${target}/server.js`, `${target}/standalone.js`); // Next's own server
const own = await trace.nodeFileTrace(['server.js', 'db/migrate.js'], { ignore: 'node_modules/next/**' });
for (const path of [...own.fileList, '.next/static', 'public', 'db/migrations']) {
  cpSync(path, `${target}/${path}`, { recursive: true });
}
