/** The path of the peer link, fixed by the original client (Device Builder 1.26). */
export const peerLinkPath = '/remote-build/peer-link';
