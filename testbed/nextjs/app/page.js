import { count, desc, eq } from 'drizzle-orm';
import { cookies } from 'next/headers';
import Image from 'next/image';
import { auth } from '../auth.js';
import { database } from '../db/index.js';
import { guests, notes } from '../db/schema.js';
import { addNote, mailLink } from './actions.js';
import Clock from './clock.js';

/** The row of this visitor, made at the first view. On a replica that fails, the answer is 500, and the primary is asked. */
async function guest() {
  const id = (await cookies()).get('guest').value;
  const db = database();
  const found = db.select().from(guests).where(eq(guests.id, id)).get();
  return found ?? db.insert(guests).values({ id, since: new Date() }).returning().get();
}

export default async function Page() {
  const visitor = await guest();
  const session = await auth();
  const db = database();
  const [{ guestCount }] = db.select({ guestCount: count() }).from(guests).all();
  return (
    <main>
      <h1>abaci with Next.js</h1>
      <Image src="/picture.png" alt="" width={320} height={200} priority />
      <p>
        served by <b id="pod">{process.env.POD_NAME}</b> to <b id="user">{session?.user.email ?? 'nobody'}</b>, guest{' '}
        <b id="guest">{visitor.id}</b> of <b id="guests">{guestCount}</b>
      </p>
      <Clock />
      <form id="note" action={addNote}>
        <input name="text" required maxLength={1000} />
        <button>Write</button>
      </form>
      <ul id="notes">
        {db.select().from(notes).orderBy(desc(notes.id)).limit(20).all().map((note) => (
          <li key={note.id}>{note.text}</li>
        ))}
      </ul>
      <form id="sign-in" action={mailLink}>
        <input name="email" type="email" required />
        <button>Send me a link</button>
      </form>
    </main>
  );
}
