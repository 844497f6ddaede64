// Authorities and what they certify, made anew by each test file: no private key is ever in the repository.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { isIP } from 'node:net';
import forge from 'node-forge';

const DAY = 86_400_000;

export class Authority {
  name;
  #key = generateKey();
  #chain;

  /** A root; or, below `parent`, one that is trusted because its parent is. */
  constructor(name, parent) {
    this.name = name;
    const extensions = [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, critical: true },
    ];
    /** Its own certificate, for who is to trust it. */
    this.pem = (parent ?? this).#certify({ subject: name, key: this.#key, extensions });
    // A server sends along what leads to the root, but not the root itself.
    this.#chain = parent ? this.pem + parent.#chain : '';
  }

  /** A certificate and its key, in PEM, for a server that goes by these names. */
  issue({ names = ['127.0.0.1', 'localhost'], from, until } = {}) {
    const key = generateKey();
    const extensions = [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      { name: 'subjectAltName', altNames: names.map((name) => (isIP(name) ? { type: 7, ip: name } : { type: 2, value: name })) },
    ];
    return { cert: this.#certify({ subject: names[0], key, extensions, from, until }) + this.#chain, key: key.pem };
  }

  #certify({ subject, key, extensions, from = Date.now() - DAY, until = Date.now() + DAY }) {
    const certificate = forge.pki.createCertificate();
    certificate.serialNumber = `01${randomBytes(15).toString('hex')}`; // which 01 keeps from being negative
    certificate.validity = { notBefore: new Date(from), notAfter: new Date(until) };
    certificate.publicKey = key.verifying;
    certificate.setSubject([{ name: 'commonName', value: subject }]);
    certificate.setIssuer([{ name: 'commonName', value: this.name }]);
    certificate.setExtensions(extensions);
    certificate.sign(this.#key.signing, forge.md.sha256.create());
    return forge.pki.certificateToPem(certificate);
  }
}

/** Made by node, which is quicker at it than node-forge. */
function generateKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' });
  const signing = forge.pki.privateKeyFromPem(pem);
  return { pem, signing, verifying: forge.pki.setRsaPublicKey(signing.n, signing.e) };
}
