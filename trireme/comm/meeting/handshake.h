// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// How two ranks prove to one another that they know the job's secret, without showing it. Pure:
// bytes in, bytes out.
//
//   rank r -> rank 0   hello      magic, version, r, size, nonce_r
//   rank 0 -> rank r   challenge  nonce_0, HMAC("rank 0", hello, nonce_0)
//   rank r -> rank 0   proof      HMAC("member", hello, nonce_0)
//   rank 0 -> rank r   trusted
//
// HMAC is HMAC-SHA256 keyed with the secret. Both nonces are 32 random bytes, so that an old proof
// is worth nothing; the labels differ, so that a proof cannot be reflected; rank and size stand in
// the hello that is authenticated, so that a proof cannot be used for another rank. Nothing that a
// stranger sends is trusted, and rank 0 says nothing about the job before the proof.
//
// These four frames are the same in every version of the protocol, so that ranks of different
// versions still come to trust one another, and can then be told why they cannot work together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace trireme {

constexpr std::size_t kNonceBytes = 32;
constexpr std::size_t kProofBytes = 32;

// Of everything after the handshake.
constexpr std::uint32_t kProtocolVersion = 3;

struct Hello {
  std::uint32_t rank = 0;
  std::uint32_t size = 0;
  std::string nonce;
  std::uint32_t version = kProtocolVersion;
};

// kNonceBytes from the system's random generator.
std::string make_nonce();

std::string encode_hello(const Hello& hello);
// Throws ProtocolError.
Hello decode_hello(std::string_view payload);

enum class Prover { kRankZero, kMember };

// hello is the encoded hello, as it travelled.
std::string make_proof(Prover prover, std::string_view secret, std::string_view hello,
                       std::string_view server_nonce);
// The member's part: its proof in answer to a challenge's payload. Nothing: who challenges knows
// another secret. Throws ProtocolError for another size.
std::optional<std::string> answer_challenge(std::string_view challenge, std::string_view secret,
                                            std::string_view hello);
// In constant time.
bool proof_is(std::string_view proof, std::string_view expected);

}  // namespace trireme
