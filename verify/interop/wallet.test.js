import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Wallet, highS } from './wallet.js';

const vectors = JSON.parse(readFileSync(new URL('../../link-core/vectors/wallet-v1.json', import.meta.url), 'utf8'));

test('a private key gives its public key, address and short address, leading zeros or not', () => {
  for (const vector of vectors.wallets) {
    for (const spelling of [vector.private_key, vector.private_key_padded]) {
      const wallet = new Wallet(spelling);
      assert.equal(wallet.privateKey, vector.private_key_padded);
      assert.equal(wallet.publicKey, vector.public_key);
      assert.equal(wallet.address, vector.address);
      assert.equal(wallet.shortAddress, vector.short_address);
    }
  }
});

test('a text is signed to the same 130 digits every time', () => {
  for (const { private_key, address, signatures } of vectors.wallets) {
    for (const { message, signature } of signatures) {
      assert.equal(new Wallet(private_key).sign(message), signature);
      assert.equal(Wallet.verify(address, message, signature), true);
    }
  }
});

test('a signature is valid, invalid or beyond reading as the vectors say', () => {
  for (const { name, message, signature, address, reference } of vectors.verify) {
    if (reference === 'throws') assert.throws(() => Wallet.verify(address, message, signature), undefined, name);
    else assert.equal(Wallet.verify(address, message, signature), reference === 'valid', name);
  }
});

test('the high-S spelling is the one of the vectors', () => {
  const spelled = (name) => vectors.verify.find((vector) => vector.name === name).signature;
  assert.equal(highS(spelled('good')), spelled('high-s form'));
});

test('an address is valid only in its own checksummed form', () => {
  for (const { text, valid } of vectors.addresses) {
    // Where the vectors were made, capitals alone pass for any address: the check there does not lower-case them first.
    const inCapitals = /^xe_[0-9A-F]*[A-F][0-9A-F]*$/.test(text);
    assert.equal(Wallet.isAddress(text), valid && !inCapitals, JSON.stringify(text));
  }
});

test('a fresh wallet is another each time and signs what it can verify', () => {
  const [one, other] = [new Wallet(), new Wallet()];
  assert.notEqual(one.address, other.address);
  assert.equal(Wallet.verify(one.address, 'text', one.sign('text')), true);
  assert.equal(Wallet.verify(other.address, 'text', one.sign('text')), false);
});
