'use server';

import { revalidatePath } from 'next/cache';
import { signIn } from '../auth.js';
import { database } from '../db/index.js';
import { notes } from '../db/schema.js';

export async function addNote(form) {
  const text = String(form.get('text') ?? '').trim();
  if (!text || text.length > 1000) return;
  database().insert(notes).values({ text }).run();
  revalidatePath('/');
}

export async function mailLink(form) {
  await signIn('email', { email: form.get('email'), redirectTo: '/' });
}
