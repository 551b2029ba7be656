// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "trireme/base/error.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme {
namespace {

constexpr std::string_view kMagic = "TRIREME\n";

}  // namespace

std::string make_nonce() {
  std::string nonce(kNonceBytes, '\0');
  if (RAND_bytes(reinterpret_cast<unsigned char*>(nonce.data()), static_cast<int>(nonce.size())) !=
      1) {
    throw_error<CommError>("the system's random generator gives no bytes (OpenSSL RAND_bytes)");
  }
  return nonce;
}

std::string encode_hello(const Hello& hello) {
  return FieldWriter()
      .raw(kMagic)
      .u32(hello.version)
      .u32(hello.rank)
      .u32(hello.size)
      .raw(hello.nonce)
      .bytes();
}

Hello decode_hello(std::string_view payload) {
  FieldReader reader(payload);
  if (reader.raw(kMagic.size()) != kMagic) throw_error<ProtocolError>("not a Trireme hello");
  Hello hello;
  hello.version = reader.u32();
  hello.rank = reader.u32();
  hello.size = reader.u32();
  hello.nonce = reader.raw(kNonceBytes);
  reader.finish();
  return hello;
}

std::string make_proof(Prover prover, std::string_view secret, std::string_view hello,
                       std::string_view server_nonce) {
  const std::string message = FieldWriter()
                                  .text(prover == Prover::kRankZero ? "rank 0" : "member")
                                  .text(hello)
                                  .text(server_nonce)
                                  .bytes();
  std::string proof(kProofBytes, '\0');
  unsigned int size = 0;
  if (HMAC(EVP_sha256(), secret.data() != nullptr ? secret.data() : "",
           static_cast<int>(secret.size()), reinterpret_cast<const unsigned char*>(message.data()),
           message.size(), reinterpret_cast<unsigned char*>(proof.data()), &size) == nullptr ||
      size != kProofBytes) {
    throw_error<CommError>("OpenSSL cannot compute HMAC-SHA256");
  }
  return proof;
}

std::optional<std::string> answer_challenge(std::string_view challenge, std::string_view secret,
                                            std::string_view hello) {
  FieldReader reader(challenge);
  const std::string_view nonce = reader.raw(kNonceBytes);
  const std::string_view proof = reader.raw(kProofBytes);
  reader.finish();
  if (!proof_is(proof, make_proof(Prover::kRankZero, secret, hello, nonce))) return std::nullopt;
  return make_proof(Prover::kMember, secret, hello, nonce);
}

bool proof_is(std::string_view proof, std::string_view expected) {
  return proof.size() == expected.size() &&
         CRYPTO_memcmp(proof.data(), expected.data(), expected.size()) == 0;
}

}  // namespace trireme
