// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/frame.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <string>
#include <vector>

#include "trireme/comm/meeting/handshake.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace trireme {
namespace {

TEST(Frame, ComesBackWhateverThePiecesItArrivesIn) {
  const bool held = rc::check([](const std::vector<std::string>& payloads, unsigned pieces) {
    std::string bytes;
    for (const std::string& payload : payloads) bytes += encode_frame(FrameType::kPut, payload);
    const std::size_t piece = 1 + pieces % 7;
    FrameDecoder decoder(kMemberFrameLimit);
    std::vector<std::string> decoded;
    for (std::size_t at = 0; at < bytes.size(); at += piece) {
      decoder.feed(std::string_view(bytes).substr(at, piece));
      while (const auto frame = decoder.next()) decoded.push_back(frame->payload);
    }
    RC_ASSERT(decoded == payloads);
  });
  EXPECT_TRUE(held);
}

TEST(Frame, OverTheLimitIsRefusedBeforeItArrives) {
  FrameDecoder decoder(kStrangerFrameLimit);
  decoder.feed(encode_frame(FrameType::kHello, std::string(4097, 'x')).substr(0, 5));
  EXPECT_THROW(decoder.next(), ProtocolError);
}

TEST(Frame, OfUnknownTypeIsRefused) {
  FrameDecoder decoder(kStrangerFrameLimit);
  decoder.feed(encode_frame(static_cast<FrameType>(99), "x"));
  EXPECT_THROW(decoder.next(), ProtocolError);
}

// Parsers of what a peer says: any bytes give a value or a ProtocolError.
TEST(Frame, AnyBytesAreAnsweredByAnError) {
  const auto survives = [](const auto& parse) {
    return rc::check([&](const std::string& bytes) {
      try {
        parse(bytes);
      } catch (const ProtocolError&) {
      }
    });
  };
  EXPECT_TRUE(survives([](const std::string& bytes) { decode_hello(bytes); }));
  EXPECT_TRUE(survives([](const std::string& bytes) { detail::decode_failure(bytes); }));
  EXPECT_TRUE(survives([](const std::string& bytes) {
    FieldReader reader(bytes);
    detail::decode_member(reader);
  }));
  EXPECT_TRUE(survives([](const std::string& bytes) {
    FrameDecoder decoder(kStrangerFrameLimit);
    decoder.feed(bytes);
    while (decoder.next()) {
    }
  }));
}

TEST(Frame, FieldsRunOut) {
  const std::string bytes = FieldWriter().u32(1000).raw("short").bytes();
  FieldReader reader(bytes);
  EXPECT_THROW(reader.text(), ProtocolError);
  FieldReader left_over(bytes);
  left_over.u32();
  EXPECT_THROW(left_over.finish(), ProtocolError);
}

TEST(Handshake, HelloComesBack) {
  const Hello hello{3, 8, make_nonce()};
  const Hello back = decode_hello(encode_hello(hello));
  EXPECT_EQ(back.rank, 3u);
  EXPECT_EQ(back.size, 8u);
  EXPECT_EQ(back.nonce, hello.nonce);
  EXPECT_NE(make_nonce(), make_nonce());
}

TEST(Handshake, ProofDependsOnEverything) {
  const std::string hello = encode_hello({1, 2, std::string(kNonceBytes, 'n')});
  const std::string nonce(kNonceBytes, 's');
  const std::string proof = make_proof(Prover::kMember, "secret", hello, nonce);
  EXPECT_EQ(proof.size(), kProofBytes);
  EXPECT_TRUE(proof_is(proof, make_proof(Prover::kMember, "secret", hello, nonce)));
  const std::string other_rank = encode_hello({2, 2, std::string(kNonceBytes, 'n')});
  for (const std::string& other :
       {make_proof(Prover::kRankZero, "secret", hello, nonce),
        make_proof(Prover::kMember, "Secret", hello, nonce),
        make_proof(Prover::kMember, "", hello, nonce),
        make_proof(Prover::kMember, "secret", other_rank, nonce),
        make_proof(Prover::kMember, "secret", hello, std::string(kNonceBytes, 't'))}) {
    EXPECT_FALSE(proof_is(proof, other));
  }
  EXPECT_FALSE(proof_is("", proof));
  EXPECT_FALSE(proof_is(proof.substr(1), proof));
}

}  // namespace
}  // namespace trireme
