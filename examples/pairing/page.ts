/**
 * The operator's page. On the left it shows the fingerprint of this build server, on the right those of the dashboards
 * that request pairing, each as pictures, as words and in full. The other screen must show the same two.
 *
 * The template escapes and isolates whatever a peer chose, so that it cannot change the text around it. Each control has
 * an id, by which the script finds it again after an update.
 */
import { pinPictures, pinText, type Pairing, type PeerView, type Receiver } from 'koa-esphome-receiver';
import { html, type Html } from '../dashboard/html.js';

type Request = ReturnType<Pairing['requests']>[number];

export interface View extends Pick<Receiver, 'pin'> {
  /** Where other dashboards find the peer link. */
  readonly address: string;
  readonly closesInMs: number;
  readonly requests: readonly Request[];
  readonly peers: readonly PeerView[];
  /** Why the last action failed. */
  readonly alert: string | undefined;
}

const pairsPerLine = 8;

export function page(view: View): string {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>Pairing</title>
        <link rel="stylesheet" href="/page.css" />
        <script src="/page.js" defer></script>
      </head>
      <body>
        <h1>Pairing</h1>
        ${view.alert === undefined ? '' : html`<p class="alert" role="alert">${view.alert}</p>`}
        <p id="news" role="status"></p>
        <main id="live">
          <div class="columns">${own(view)} ${requests(view)}</div>
          ${paired(view.peers)}
        </main>
      </body>
    </html>`.html;
}

function own({ pin, address }: View): Html {
  return html`<section class="own" id="own">
    <h2>This build server</h2>
    <div class="bar">Other dashboards find it at <code>${address}</code></div>
    <div class="card">
      <h3>Its own fingerprint</h3>
      <p class="quiet">The other dashboard must show this fingerprint before it requests pairing.</p>
      ${fingerprint(pin)}
    </div>
  </section>`;
}

function requests(view: View): Html {
  return html`<section>
    <h2 id="requests" tabindex="-1">Requests to pair</h2>
    ${windowBar(view.closesInMs)} ${view.requests.map(request)}
    ${
      view.requests.length > 0
        ? ''
        : html`<p class="quiet">
            ${
              view.closesInMs > 0
                ? 'No requests yet.'
                : 'Dashboards can request pairing while the window is open. It stays open for five minutes.'
            }
          </p>`
    }
  </section>`;
}

function windowBar(closesInMs: number): Html {
  if (closesInMs === 0)
    return html`<div class="bar" id="window">
      <span class="badge">Closed</span> ${button('/window/open', 'Open the window', 'primary')}
    </div>`;
  return html`<div class="bar" id="window">
    <span class="badge good">Open</span>
    <span
      >closes in <b id="left" role="timer" data-ms="${closesInMs.toFixed()}">${clock(closesInMs)}</b></span
    >
    ${button('/window/open', 'Extend')} ${button('/window/close', 'Close')}
  </div>`;
}

function request({ dashboardId: id, pin, label, address }: Request): Html {
  return html`<form class="card request" id="request-${id}" method="post" action="/requests/approve">
    <h3>${nameOf(label)} requests pairing</h3>
    <p class="quiet">from ${address}, id <code>${id}</code></p>
    ${fingerprint(pin)}
    <input type="hidden" name="id" value="${id}" />
    <input type="hidden" name="pin" value="${pin}" />
    <p class="warning">An approved dashboard can run any program on this machine, as with a shell.</p>
    <label>
      <input type="checkbox" name="compared" value="yes" required id="compared-${id}-${pin}" />
      I have compared both fingerprints with its screen: its own, and that of this build server.
    </label>
    <div class="bar">
      <button class="primary" id="approve-${id}-${pin}">Approve</button>
      <button formaction="/requests/reject" formnovalidate id="reject-${id}-${pin}">Reject</button>
    </div>
  </form>`;
}

function paired(peers: readonly PeerView[]): Html {
  if (peers.length === 0)
    return html`<section id="paired">
      <h2>Paired dashboards</h2>
      <p class="quiet">None.</p>
    </section>`;
  return html`<section id="paired">
    <h2>Paired dashboards</h2>
    <table>
      <thead>
        <tr>
          <th scope="col">Dashboard</th>
          <th scope="col">Fingerprint</th>
          <th scope="col">Paired</th>
          <th scope="col">Status</th>
          <td></td>
        </tr>
      </thead>
      <tbody>
        ${peers.map(row)}
      </tbody>
    </table>
  </section>`;
}

function row({ dashboardId: id, pin, label, friendlyName, address, pairedAt, connected }: PeerView): Html {
  const since = new Date(pairedAt).toISOString();
  return html`<tr id="peer-${id}">
    <th scope="row">
      ${nameOf(friendlyName || label)}
      <div class="quiet">${address}</div>
    </th>
    <td class="small">${fingerprint(pin)}</td>
    <td><time datetime="${since}">${since.slice(0, 16).replace('T', ' ')} UTC</time></td>
    <td>
      ${connected ? html`<span class="badge good">Connected</span>` : html`<span class="badge">Not connected</span>`}
    </td>
    <td>
      <details id="details-${id}">
        <summary id="summary-${id}">Revoke</summary>
        <form method="post" action="/peers/revoke">
          <input type="hidden" name="id" value="${id}" />
          <p class="quiet">This ends its session and removes its builds.</p>
          <button class="danger" id="revoke-${id}">Yes, revoke</button>
        </form>
      </details>
    </td>
  </tr>`;
}

function nameOf(label: string): Html {
  return label === '' ? html`<i>A dashboard without a name</i>` : html`<bdi>${label}</bdi>`;
}

/** In all three forms. The pictures show only 42 of 256 bits, so people should compare the rest too. */
function fingerprint(pin: string): Html {
  const pairs = pinText(pin).split(' ');
  const lines = Array.from({ length: pairs.length / pairsPerLine }, (_, n) =>
    pairs.slice(n * pairsPerLine, (n + 1) * pairsPerLine).join(' '),
  );
  return html`<ol class="pictures">
      ${pinPictures(pin).map(
        ({ emoji, name }) =>
          html`<li>
            <span class="emoji" aria-hidden="true">${emoji}</span> <span class="word">${name}</span>
          </li>`,
      )}
    </ol>
    <code class="hex">${lines.map((line) => html`<span>${line}</span> `)}</code>`;
}

function button(action: string, text: string, kind = ''): Html {
  return html`<form method="post" action="${action}">
    <button class="${kind}" id="press-${text.replaceAll(' ', '-')}">${text}</button>
  </form>`;
}

/** Minutes and seconds. */
function clock(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
}
