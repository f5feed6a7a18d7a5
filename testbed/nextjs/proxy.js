// A visitor without a cookie gets one, which the page finds in the same request.
import { NextResponse } from 'next/server';

export function proxy(request) {
  if (request.cookies.has('guest')) return NextResponse.next();
  const id = crypto.randomUUID();
  request.cookies.set('guest', id);
  const response = NextResponse.next({ request });
  response.cookies.set('guest', id, { httpOnly: true, sameSite: 'lax', maxAge: 365 * 86_400 });
  return response;
}

export const config = { matcher: '/' };
