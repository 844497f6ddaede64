// An XE wallet: who a Link peer is.

import { createHash, randomBytes } from 'node:crypto';
import elliptic from 'elliptic';
import sha3 from 'js-sha3';

const secp256k1 = new elliptic.ec('secp256k1');

export class Wallet {
  #key;

  /** From a private key in hex; leading zeros may be missing. Without one, a fresh wallet. */
  constructor(privateKey = randomBytes(32).toString('hex')) {
    this.#key = secp256k1.keyFromPrivate(privateKey.padStart(64, '0'), 'hex');
    this.publicKey = this.#key.getPublic(true, 'hex');
    this.address = addressOf(this.publicKey);
  }

  get privateKey() {
    return this.#key.getPrivate().toString(16, 64);
  }

  /** `xe_61db...af0E`, for people. */
  get shortAddress() {
    return `${this.address.slice(0, 7)}...${this.address.slice(-4)}`;
  }

  /** 130 hex digits: r, s (the lower of its two spellings) and the recovery id. */
  sign(text) {
    const { r, s, recoveryParam } = this.#key.sign(digestOf(text), { canonical: true });
    return hex(r, 64) + hex(s, 64) + recoveryParam.toString(16).padStart(2, '0');
  }

  /**
   * Whether `signature` over `text` gives `address`, compared as text. As lenient as JavaScript peers are: high-S and
   * whatever follows the 130 digits are let through, and a signature that recovers no key throws.
   */
  static verify(address, text, signature) {
    const r = signature.slice(0, 64);
    const s = signature.slice(64, 128);
    const recovery = Number.parseInt(signature.slice(128, 130), 16);
    const point = secp256k1.recoverPubKey(digestOf(text), { r, s }, recovery, 'hex');
    return addressOf(point.encodeCompressed('hex')) === address;
  }

  static isAddress(text) {
    return /^xe_[0-9a-fA-F]{40}$/.test(text) && !text.endsWith('\n') && checksummed(text.slice(3)) === text;
  }
}

/** The other signature of the same text by the same key: s is replaced by n − s, and the recovery id flips. */
export function highS(signature) {
  const s = secp256k1.n.sub(secp256k1.keyFromPrivate(signature.slice(64, 128), 'hex').getPrivate());
  const recovery = Number.parseInt(signature.slice(128, 130), 16) ^ 1;
  return signature.slice(0, 64) + hex(s, 64) + recovery.toString(16).padStart(2, '0');
}

function addressOf(publicKey) {
  return checksummed(sha3.keccak256(publicKey).slice(-40));
}

function checksummed(digits) {
  const lower = digits.toLowerCase();
  const hash = sha3.keccak256(lower);
  return 'xe_' + Array.from(lower, (digit, i) => (Number.parseInt(hash[i], 16) >= 8 ? digit.toUpperCase() : digit)).join('');
}

function digestOf(text) {
  return [...createHash('sha256').update(text, 'utf8').digest()];
}

function hex(number, digits) {
  return number.toString(16).padStart(digits, '0');
}
