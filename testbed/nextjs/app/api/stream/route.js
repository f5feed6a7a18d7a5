import { setTimeout as sleep } from 'node:timers/promises';

export const dynamic = 'force-dynamic';

export function GET(request) {
  const encoder = new TextEncoder();
  const stream = new ReadableStream({
    async start(controller) {
      for (let number = 1; number <= 5 && !request.signal.aborted; number++) {
        controller.enqueue(encoder.encode(`data: ${number} from ${process.env.POD_NAME}\n\n`));
        await sleep(500);
      }
      if (!request.signal.aborted) controller.close();
    },
  });
  return new Response(stream, { headers: { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' } });
}
