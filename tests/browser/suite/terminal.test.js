// A person at the terminal: types, reads, copies, pastes, finds, resizes.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, test } from 'node:test';

import { launch, open, shot } from './browser.js';
import { session } from './cluster.js';

const browser = await launch();
after(() => browser.close());

const clipboard = { permissions: ['clipboard-read', 'clipboard-write'] };

test('what is typed reaches the shell, and what it prints is shown, with who, where, why, how long and whether it is recorded', async (t) => {
  const granted = await session();
  const { page, terminal } = await open(t, browser, granted, { colorScheme: 'dark' });
  await terminal.line('echo $((6 * 7)) is the an""swer');
  await terminal.until(/^42 is the answer$/m);
  assert.match(await page.locator('#where').textContent(), /\/web\/main$/);
  assert.equal(await page.locator('#who').textContent(), 'alice@example.com');
  assert.equal(await page.locator('#why').textContent(), 'orders stuck since 14:05');
  assert.equal(await page.locator('#recorded').textContent(), 'Recorded');
  assert.equal(await page.locator('#connection-text').textContent(), 'Connected');
  const [minutes, seconds] = (await page.locator('#left').textContent()).split(':').map(Number);
  const left = (granted.expiresAt - Date.now()) / 1000;
  assert.ok(Math.abs(minutes * 60 + seconds - left) < 3, `it says ${minutes}:${seconds}, and ${left} s are left`);
  assert.equal(new URL(page.url()).hash, '', 'the address bar keeps no token');
  await terminal.line('clear; ls -l /; df -h / | tail -n 1; printf "\\033[1;32mready\\033[0m \\033[33mwarn\\033[0m \\033[31mfail\\033[0m\\n"');
  await terminal.until(/ready warn fail/);
  await shot(page, 'terminal');
});

test('the shell knows the size of the window, and each new one', async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  let asked = 0;
  const told = async () => {
    asked += 1;
    const rows = await page.locator('.panel:not([hidden]) .xterm-rows > div').count();
    await terminal.line(`clear; for n in 1 2 3 4 5 6 7 8 9 10; do stty size | grep -q "^${rows} " && break; sleep 0.1; done; echo size ${asked}: $(stty size)`);
    const [, height, width] = await terminal.until(new RegExp(`^size ${asked}: (\\d+) (\\d+)$`, 'm'));
    assert.equal(Number(height), rows);
    return { rows, columns: Number(width) };
  };
  const first = await told();
  await page.setViewportSize({ width: 700, height: 420 });
  await page.waitForFunction((rows) => document.querySelectorAll('.xterm-rows > div').length < rows, first.rows);
  const second = await told();
  assert.ok(second.columns < first.columns && second.rows < first.rows, JSON.stringify([first, second]));
  await page.keyboard.press('Control+Shift+Equal');
  await page.waitForFunction((rows) => document.querySelectorAll('.xterm-rows > div').length < rows, second.rows);
  const third = await told();
  assert.ok(third.columns < second.columns, 'larger text leaves room for fewer columns');
});

test('a megabyte that is pasted arrives whole and unchanged', async (t) => {
  const { page, terminal } = await open(t, browser, await session(), clipboard);
  // Lines, as a terminal in its usual mode holds no more than 4095 bytes of one.
  const text = Array.from({ length: 16384 }, (_, n) => `${n} äöü€😀 `.padEnd(56, 'x')).join('\n').concat('\n');
  const bytes = Buffer.from(text);
  assert.ok(bytes.length >= 1 << 20, `${bytes.length}`);
  await terminal.line(`stty -echo; echo rea""dy; head -c ${bytes.length} | sha256sum; stty echo`);
  await terminal.until(/^ready$/m);
  await page.evaluate((text) => navigator.clipboard.writeText(text), text);
  await page.locator('#paste').click();
  const [, sum] = await terminal.until(/^([0-9a-f]{64}) /m, 'the sum', 60_000);
  assert.equal(sum, createHash('sha256').update(bytes).digest('hex'));
  await terminal.line('echo still he""re');
  await terminal.until(/^still here$/m);
});

test('the browser’s own paste key pastes, without what could act as a key', async (t) => {
  const { page, terminal } = await open(t, browser, await session(), clipboard);
  // The end of a bracketed paste, and Ctrl-C: either would let the rest run by itself.
  await page.evaluate(() => navigator.clipboard.writeText('pas\x1b[201~\x03\x9bted'));
  await terminal.line("cat -v; printf '\\033[?2004l'");
  await page.keyboard.press('Shift+Insert');
  await page.keyboard.press('Enter');
  await terminal.until(/^pas\[201~ted\n(.*\n)*pas\[201~ted$/m);
  await page.keyboard.press('Control+D');
});

test('Ctrl-C interrupts', async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  await terminal.line('echo sleep""ing; sleep 1000');
  await terminal.until(/^sleeping$/m);
  await page.keyboard.press('Control+C');
  await terminal.until(/\^C\n(.*\n)*.*[#$] *$/m);
  await terminal.line('echo code $?');
  await terminal.until(/^code 130$/m);
});

test('a character in two frames, and bytes that are none, do no harm', async (t) => {
  const { terminal } = await open(t, browser, await session());
  await terminal.line("clear; printf 'one \\342'; sleep 0.3; printf '\\202'; sleep 0.3; printf '\\254 two\\n'");
  await terminal.until(/^one € two$/m);
  await terminal.line("clear; printf 'a\\377\\376\\300\\200b\\355\\240\\200c\\n'");
  await terminal.until(/^a\ufffd*b\ufffd*c$/m);
  await terminal.line('head -c 300000 /dev/urandom; printf "\\033c"; echo ali""ve');
  await terminal.until(/^alive$/m, 'the terminal after random bytes', 30_000);
});

test('fifty megabytes are shown without the page freezing, and an endless output can be stopped', { timeout: 300_000 }, async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  await page.evaluate(() => {
    window.longest = 0;
    let last = performance.now();
    const tick = () => {
      window.longest = Math.max(window.longest, performance.now() - last);
      last = performance.now();
      requestAnimationFrame(tick);
    };
    tick();
  });
  const begun = Date.now();
  // busybox's head writes a line at a time to a terminal, and its writes are what takes the time then.
  await terminal.line('yes | head -c 50000000 | cat; echo fif""ty');
  await terminal.until(/^fifty$/m, 'the end of 50 MB', 240_000);
  const seconds = (Date.now() - begun) / 1000;
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('HeapProfiler.collectGarbage');
  await cdp.send('Performance.enable');
  const heap = (await cdp.send('Performance.getMetrics')).metrics.find(({ name }) => name === 'JSHeapUsedSize').value / 1e6;
  const longest = await page.evaluate(() => window.longest);
  t.diagnostic(`50 MB in ${seconds.toFixed(1)} s; longest time without a frame ${longest.toFixed(0)} ms; heap after it ${heap.toFixed(0)} MB`);
  assert.ok(longest < 1500, `the page stood still for ${longest} ms`);
  assert.ok(heap < 200, `${heap} MB are kept`);
  await terminal.line('yes endless');
  await terminal.until(/^endless\nendless$/m);
  await page.waitForTimeout(1000); // so that everything on the way is full
  await page.keyboard.press('Control+C');
  // What is on the way comes first, and that may be much on a busy machine.
  await terminal.until(/[#$] *$/, 'a prompt after Ctrl-C', 120_000);
});

test('a word is selected by mouse and copied by key and by button', async (t) => {
  const { page, terminal } = await open(t, browser, await session(), clipboard);
  await terminal.line('clear; echo dra""wbridge-copies');
  await terminal.until(/^drawbridge-copies$/m);
  const row = page.locator('.xterm-rows > div', { hasText: /^drawbridge-copies/ });
  for (const copy of [() => page.keyboard.press('Control+Shift+C'), () => page.locator('#copy').click()]) {
    await page.evaluate(() => navigator.clipboard.writeText('before'));
    const { x, y } = await row.boundingBox();
    await page.mouse.dblclick(x + 20, y + 5);
    await copy();
    await page.waitForFunction(async () => (await navigator.clipboard.readText()) !== 'before');
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'drawbridge-copies');
  }
});

test('text is found, counted and stepped through', async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  await terminal.line('clear; for n in 1 2 3; do echo nee""dle $n; done');
  await terminal.until(/^needle 3$/m);
  await page.keyboard.press('Control+Shift+F');
  await page.keyboard.type('needle');
  const count = page.locator('#search-count');
  await page.waitForFunction(() => /^\d of 3$/.test(document.querySelector('#search-count').textContent));
  const first = await count.textContent();
  await page.keyboard.press('Enter');
  await page.waitForFunction((first) => document.querySelector('#search-count').textContent !== first, first);
  await shot(page, 'search');
  await page.keyboard.type('less');
  await page.waitForFunction(() => document.querySelector('#search-count').textContent === 'nothing found');
  await page.keyboard.press('Escape');
  assert.ok(await page.locator('#search').isHidden());
  await terminal.line('echo foc""used');
  await terminal.until(/^focused$/m);
});

test('colours follow the system, also when it changes', async (t) => {
  const { page } = await open(t, browser, await session(), { colorScheme: 'light' });
  const back = () => page.evaluate(() => [document.body, document.querySelector('.xterm-scrollable-element')].map((e) => getComputedStyle(e).backgroundColor));
  const light = await back();
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.waitForFunction(
    (light) => [document.body, document.querySelector('.xterm-scrollable-element')].every((e, n) => getComputedStyle(e).backgroundColor !== light[n]),
    light,
  );
  const dark = await back();
  assert.deepEqual([light[1], dark[1]], ['rgb(255, 255, 255)', 'rgb(16, 21, 28)']);
});

test('a screen reader can be given the lines of the terminal, and hears what happens', async (t) => {
  const { page, terminal } = await open(t, browser, await session());
  await page.getByRole('button', { name: 'Reader' }).click();
  assert.equal(await page.locator('#screen-reader').getAttribute('aria-pressed'), 'true');
  await terminal.line('clear; echo for re""aders');
  await page.locator('.xterm-accessibility-tree').getByText('for readers', { exact: true }).waitFor();
  for (const name of ['Terminals', 'Terminal tools']) assert.equal(await page.getByLabel(name, { exact: true }).first().isVisible(), true);
  const unnamed = await page.locator('button:visible').evaluateAll((buttons) => buttons.filter((b) => !(b.getAttribute('aria-label') || b.textContent.trim())).length);
  assert.equal(unnamed, 0, 'every button has a name');
  await terminal.line('exit');
  await page.locator('#announcement', { hasText: 'The shell has ended. Exit code 0' }).waitFor({ state: 'attached' });
});

test('it draws by WebGL where there is some, and shows the same', async (t) => {
  const graphics = await launch({ webgl: true });
  const { page, terminal } = await open(t, graphics, await session(), {
    before: (page) => page.addInitScript(() => localStorage.setItem('drawbridge', JSON.stringify({ screenReader: true }))),
    allow: [/GPU stall|WebGL|task queue exceeded/],
  });
  t.after(() => graphics.close());
  await terminal.line('echo dra""wn');
  await terminal.until(/^drawn$/m);
  assert.ok((await page.locator('.xterm-screen canvas').count()) > 0, 'there is a canvas');
  await shot(page, 'webgl');
});

test('a browser without WebSocketStream is served as well', async (t) => {
  const { page, terminal } = await open(t, browser, await session(), {
    ...clipboard,
    before: (page) => page.addInitScript(() => delete globalThis.WebSocketStream),
  });
  assert.equal(await page.evaluate(() => typeof WebSocketStream), 'undefined');
  await terminal.line('yes | head -c 20000000 | cat; echo twen""ty');
  await terminal.until(/^twenty$/m, 'the end of 20 MB', 90_000);
  const text = `${'y'.repeat(1023)}\n`.repeat(1024);
  await terminal.line(`clear; stty -echo; echo rea""dy; head -c ${text.length} | wc -c; stty echo`);
  await terminal.until(/^ready$/m);
  await page.evaluate((text) => navigator.clipboard.writeText(text), text);
  await page.locator('#paste').click();
  await terminal.until(/^ *1048576$/m, 'all of it', 60_000);
});
