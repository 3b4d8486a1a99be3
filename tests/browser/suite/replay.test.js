// The page of recordings: replay, live view, and who is let in.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { launch, open, Screen, shot } from './browser.js';
import { auditor, gateway, namespace, observer, recorded, revoke, session } from './cluster.js';

const browser = await launch();
after(() => browser.close());

/** A page of recordings, once something can be played on it, or is live. */
async function look(t, of, options = {}) {
  const opened = await open(t, browser, of, { wait: false, ...options });
  await opened.page.locator(options.ready ?? '#play:not([disabled])').waitFor();
  return { ...opened, shown: new Shown(opened.page) };
}

/** The recorded terminal, as a person sees it. */
class Shown extends Screen {
  constructor(page) {
    super(page);
    this.panel = page.locator('#screen');
  }
}

/** A session that printed things, ended, and whose recording is in the store. */
async function finished(t, lines, spec = {}) {
  const of = await session('web', spec);
  const { page, terminal } = await open(t, browser, of);
  for (const [line, seen] of lines) {
    await terminal.line(line);
    await terminal.until(seen);
  }
  await terminal.line('exit 3');
  await terminal.card().getByText('Exit code 3').waitFor();
  await page.close();
  await recorded(of);
  return of;
}

test('a recording is played: seek, speed, search, events, by the keyboard, and on a phone', async (t) => {
  const of = await finished(t, [
    ['echo first-""line', /^first-line$/m],
    ['printf "\\033[32mgreen\\033[0m näh 日本 ✓\\n"', /^green näh/m],
    ['echo last-""line', /^last-line$/m],
  ]);
  const looking = await observer(of);
  const { page, shown } = await look(t, looking);
  assert.equal(await page.title(), `Recordings of ${of.name} – Drawbridge`);
  assert.match(await page.locator('#where').textContent(), /\/web\/main$/);
  assert.equal(await page.locator('#who').textContent(), 'alice@example.com');
  assert.equal(await page.locator('#state-text').textContent(), 'Complete');
  assert.equal(await page.locator('.recording').count(), 1);
  assert.match(await page.locator('.recording').textContent(), /Complete.*exit code 3/);
  assert.doesNotMatch(await shown.text(), /first-line/, 'it begins at the beginning');

  await page.keyboard.press('End');
  await shown.until(/^last-line$/m);
  const end = await shown.text();
  await shot(page, 'replay-end');
  await page.keyboard.press('Home');
  await shown.until(/^((?!first-line).)*$/s);
  // Played, it comes to the same screen as when it is sought.
  await page.getByLabel('Speed').selectOption('16');
  await page.keyboard.press('k');
  await shown.until(/^last-line$/m);
  await page.locator('#play').getByText('Play').waitFor();
  assert.equal(await shown.text(), end);

  await page.keyboard.press('/');
  await page.keyboard.type('FIRST-line');
  await page.keyboard.press('Enter');
  await page.locator('.hit').first().click();
  await shown.until(/^first-line$/m);
  assert.doesNotMatch(await shown.text(), /last-line/);
  await shot(page, 'replay-search');

  const kinds = await page.locator('.mark .kind').allTextContents();
  assert.ok(kinds.includes('Size') && kinds.includes('End'), String(kinds));
  assert.ok(!kinds.includes('Typed'), 'what is typed is not recorded unless asked for');
  await page.locator('.mark', { hasText: 'End' }).click();
  await shown.until(/^last-line$/m);
  await page.locator('#play').focus();
  await page.keyboard.press('[');
  const seek = page.getByLabel('Position');
  assert.match(await seek.getAttribute('aria-valuetext'), /seconds of \d+/);
  await page.locator('#text-part summary').click();
  await page.keyboard.press('End');
  await page.locator('#text', { hasText: 'last-line' }).waitFor();

  await page.setViewportSize({ width: 360, height: 640 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  for (const id of ['where', 'state', 'viewer', 'screen', 'seek', 'play', 'speed', 'idle', 'help']) {
    const box = await page.locator(`#${id}`).boundingBox();
    assert.ok(box !== null && box.x >= 0 && box.x + box.width <= 360, `${id}: ${JSON.stringify(box)}`);
  }
  await shot(page, 'replay-phone');
});

test('everything on the page of recordings is reached by the keyboard and shows that it is', async (t) => {
  const of = await finished(t, [['echo he""re', /^here$/m]]);
  const { page } = await look(t, await observer(of));
  assert.equal(await page.evaluate(() => document.activeElement.id), 'play', 'the player has the focus from the start');
  for (const id of ['previous', 'next', 'speed', 'idle', 'reader', 'help']) {
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(() => document.activeElement.id), id);
    assert.equal(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), 'solid', id);
  }
  await page.keyboard.press('?');
  assert.ok(await page.getByRole('dialog', { name: 'Keys' }).isVisible());
  await page.keyboard.press('Escape');
  await page.keyboard.press('i');
  assert.equal(await page.locator('#idle').getAttribute('aria-pressed'), 'false');
  // The terminal can be read where it is asked for, and takes no keys.
  await page.locator('#reader').click();
  await page.keyboard.press('End');
  await page.locator('.xterm-accessibility-tree', { hasText: 'here' }).waitFor();
  assert.equal(await page.locator('.xterm-helper-textarea').getAttribute('tabindex'), '-1');
});

test('a hostile recording reaches neither the title, nor the clipboard, nor another page', async (t) => {
  const hostile = [
    '\\033]0;EVIL\\007', '\\033]2;EVIL\\007', '\\033]52;c;RVZJTA==\\007', '\\033]8;;https://elsewhere.example/\\007click\\033]8;;\\007',
    '\\033]1337;File=name=eA==:eA==\\007', '\\033[100000000b', '<img src=x onerror=alert(1)>', '\\033[8;1;1t',
  ];
  const of = await finished(t, [[`printf '${hostile.join('').replaceAll("'", '')}\\r\\n'; echo sur""vived`, /^survived$/m]]);
  const { page, context, shown } = await look(t, await observer(of), { permissions: ['clipboard-read', 'clipboard-write'] });
  const title = await page.title();
  await page.evaluate(() => navigator.clipboard.writeText('before'));
  await page.keyboard.press('End');
  await shown.until(/^survived$/m);
  assert.equal(await page.title(), title);
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'before');
  const link = await shown.panel.locator('.xterm-rows > div', { hasText: /^click</ }).boundingBox();
  await page.mouse.click(link.x + 12, link.y + link.height / 2);
  await page.waitForTimeout(300);
  assert.equal(context.pages().length, 1, 'links lead nowhere');
  assert.equal(await page.locator('#screen img').count(), 0);
});

test('a session is followed while it runs, less than 200 ms behind, and its user is told by whom', async (t) => {
  const of = await session();
  const user = await open(t, browser, of);
  await user.terminal.line('echo be""fore');
  await user.terminal.until(/^before$/m);
  const looking = await observer(of);
  const { page, shown } = await look(t, looking, { ready: '#state[data-state=live]' });
  await shown.until(/^before$/m, 'what was before');
  await user.terminal.until(/alice@example\.com is watching this session/);
  await shot(user.page, 'watched');
  // Both pages run on this machine: one clock.
  const stamp = (of, selector, text) => of.evaluate(
    ([selector, text]) => new Promise((resolve) => {
      const look = () => (document.querySelector(selector).textContent.includes(text) ? resolve(performance.timeOrigin + performance.now()) : requestAnimationFrame(look));
      look();
    }),
    [selector, text],
  );
  const behind = [];
  for (let n = 0; n < 5; n += 1) {
    const seen = [stamp(user.page, '.panel:not([hidden]) .xterm-rows', `tick-${n}-`), stamp(page, '#screen .xterm-rows', `tick-${n}-`)];
    await user.terminal.line(`echo tick""-${n}-`);
    const [there, here] = await Promise.all(seen);
    behind.push(Math.round(here - there));
  }
  console.log(`behind by ${behind} ms`);
  assert.ok(behind.sort((a, b) => a - b)[2] < 200, `behind by ${behind} ms`);
  await shot(page, 'live');
  await user.terminal.line('exit');
  await page.locator('#state', { hasText: 'Ended' }).waitFor();
  await page.keyboard.press('Home');
  await shown.until(/^((?!before).)*$/s);
  await page.keyboard.press('End');
  await shown.until(/tick-4-/);
});

test('a viewer whose session is revoked is cut, and who was watched is told and goes on', async (t) => {
  const of = await session();
  const user = await open(t, browser, of);
  const looking = await observer(of);
  const { page } = await look(t, looking, { ready: '#state[data-state=live]' });
  await user.terminal.until(/is watching this session/);
  await revoke(looking);
  await page.locator('#warning', { hasText: 'was revoked' }).waitFor();
  await user.terminal.until(/is no longer watching this session/);
  await user.terminal.line('echo still-""here');
  await user.terminal.until(/^still-here$/m);
});

test('who may not look sees nothing: a shell, another session\'s viewer, an identity without the right', async (t) => {
  const of = await finished(t, [['echo sec""ret', /^secret$/m]]);
  const other = await session();
  const stranger = await observer(other);
  const person = await auditor(other.name);
  for (const [token, title] of [[of.token, 'Not allowed'], [stranger.token, 'Not allowed'], [person, 'Not allowed']]) {
    const link = `/ui/replay.html#${namespace}/${of.name}/${token}`;
    const { page } = await open(t, browser, { token, link }, { wait: false, allow: [/403/] });
    await page.getByRole('heading', { name: title }).waitFor();
  }
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  for (const rest of ['', `/${(await recorded(of))[0].id}/cast`]) {
    const url = new URL(`/sessions/${namespace}/${of.name}/recordings${rest}`, gateway);
    const response = await context.request.get(url.href, { headers: { authorization: `Bearer ${of.token}` } });
    assert.equal(response.status(), 403, rest);
  }
  await context.close();
});

test('an identity that may get the recordings of a session looks at them without one of its own', async (t) => {
  const of = await finished(t, [['echo by-""right', /^by-right$/m]]);
  const token = await auditor(of.name);
  const { page, shown } = await look(t, { token, link: `/ui/replay.html#${namespace}/${of.name}/${token}` });
  assert.match(await page.locator('#viewer').textContent(), /^system:serviceaccount:/);
  await page.keyboard.press('End');
  await shown.until(/^by-right$/m);
});

test('the link of a session that looks leads from the terminal page to its recordings', async (t) => {
  const of = await finished(t, [['echo lin""ked', /^linked$/m]]);
  const looking = await observer(of);
  const { page } = await look(t, { ...looking, link: looking.link.replace('replay.html', '').replace(of.name, looking.name) });
  assert.match(page.url(), /\/ui\/replay\.html$/);
});
