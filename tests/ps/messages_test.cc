// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/messages.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string>

#include "tests/ps/malformed_bytes.h"
#include "tests/support/struct_fields.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

using trireme::testing::arbitrary_struct;
using trireme::testing::malformed;
using trireme::testing::same_fields;

template <class Message>
class Messages : public ::testing::Test {};

using All = ::testing::Types<Registration, Registered, Watch, Ready, Announcement, RangeRequest,
                             RangeReply, Replication, Replicated, ServerReport>;

TYPED_TEST_SUITE(Messages, All);

TYPED_TEST(Messages, ComeBackWithAllTheirFields) {
  rc::detail::checkGTest([] {
    const auto message = *arbitrary_struct<TypeParam>();
    RC_ASSERT(same_fields(decode<TypeParam>(encode(message)), message));
  });
}

// Wherever they end too early, and where anything follows.
TYPED_TEST(Messages, AreErrorsWhenTheirLengthIsWrong) {
  rc::detail::checkGTest([] {
    const std::string bytes = encode(*arbitrary_struct<TypeParam>());
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      RC_ASSERT_THROWS_AS(decode<TypeParam>(std::string_view(bytes).substr(0, size)),
                          ProtocolError);
    }
    RC_ASSERT_THROWS_AS(decode<TypeParam>(bytes + '\0'), ProtocolError);
  });
}

// A ProtocolError, or a message that encodes again.
TYPED_TEST(Messages, AreErrorsWhenTheyAreDamaged) {
  rc::detail::checkGTest([] {
    const std::string bytes = malformed(encode(*arbitrary_struct<TypeParam>()));
    try {
      encode(decode<TypeParam>(bytes));
    } catch (const ProtocolError&) {
    }
  });
}

}  // namespace
}  // namespace trireme::ps
