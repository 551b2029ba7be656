// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/admission.h"

#include <algorithm>
#include <cstdint>

namespace trireme {

void Admission::handle(const Frame& frame, std::string& answer) {
  if (stage_ == Stage::kHello && frame.type == FrameType::kHello) {
    challenge(frame, answer);
  } else if (stage_ == Stage::kProof && frame.type == FrameType::kProof) {
    trust(frame, answer);
  } else if (stage_ == Stage::kMember && frame.type == FrameType::kMember) {
    introduce(frame);
  } else {
    throw_error<ProtocolError>("frame of type {} out of turn", static_cast<int>(frame.type));
  }
}

void Admission::challenge(const Frame& frame, std::string& answer) {
  hello_ = decode_hello(frame.payload);
  hello_bytes_ = frame.payload;
  nonce_ = make_nonce();
  const std::string proof = make_proof(Prover::kRankZero, secret_, hello_bytes_, nonce_);
  answer += encode_frame(FrameType::kChallenge, FieldWriter().raw(nonce_).raw(proof).bytes());
  stage_ = Stage::kProof;
}

void Admission::trust(const Frame& frame, std::string& answer) {
  if (!proof_is(frame.payload, make_proof(Prover::kMember, secret_, hello_bytes_, nonce_))) {
    throw ProtocolError("it does not know the job's secret");
  }
  answer += encode_frame(FrameType::kTrusted, {});
  stage_ = Stage::kMember;
}

void Admission::introduce(const Frame& frame) {
  FieldReader reader(frame.payload);
  patience_ = std::chrono::milliseconds(
      std::min<std::uint64_t>(reader.u64(), static_cast<std::uint64_t>(INT32_MAX)));
  member_ = detail::decode_member(reader);
  reader.finish();
  if (static_cast<std::uint32_t>(member_.rank) != hello_.rank) {
    throw_error<ProtocolError>("it proved that it is rank {} and says {}", hello_.rank,
                               member_.rank);
  }
  stage_ = Stage::kJoined;
}

}  // namespace trireme
