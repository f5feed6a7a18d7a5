'use client';

import { useState } from 'react';

/** Shows what /api/stream says, line by line. */
export default function Clock() {
  const [line, setLine] = useState('');
  const start = () => {
    const source = new EventSource('/api/stream');
    source.onmessage = (event) => setLine(event.data);
    source.onerror = () => source.close();
  };
  return <button onClick={start}>Stream {line}</button>;
}
