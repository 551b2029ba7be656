// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/job_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/ps/malformed_bytes.h"
#include "tests/ps/training.h"
#include "tests/support/struct_fields.h"
#include "trireme/comm/meeting/frame.h"

namespace trireme::ps {
namespace {

using ::testing::HasSubstr;
using trireme::testing::arbitrary_struct;
using trireme::testing::malformed;
using trireme::testing::same_fields;

RC_GTEST_PROP(JobLayouts, ComeBackWithAllTheirFields, ()) {
  const auto layout = *arbitrary_struct<JobLayout>();
  RC_ASSERT(same_fields(JobLayout::decode(layout.encode()), layout));
  RC_ASSERT(layout_difference(layout, JobLayout::decode(layout.encode())).empty());
}

RC_GTEST_PROP(JobLayouts, AreErrorsWhenTheirLengthIsWrong, ()) {
  const std::string bytes = (*arbitrary_struct<JobLayout>()).encode();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    RC_ASSERT_THROWS_AS(JobLayout::decode(std::string_view(bytes).substr(0, size)), ProtocolError);
  }
  RC_ASSERT_THROWS_AS(JobLayout::decode(bytes + '\0'), ProtocolError);
}

RC_GTEST_PROP(JobLayouts, AreErrorsWhenTheyAreDamaged, ()) {
  const std::string bytes = malformed((*arbitrary_struct<JobLayout>()).encode());
  try {
    JobLayout::decode(bytes).encode();
  } catch (const ProtocolError&) {
  }
}

// Two that are the same but for one thing.
TEST(JobLayouts, SayWhatDiffers) {
  const auto difference = [](const std::function<void(JobLayout&)>& change) {
    const JobLayout ours = mixed_layout();
    JobLayout theirs = ours;
    change(theirs);
    return layout_difference(ours, theirs);
  };
  EXPECT_EQ(difference([](JobLayout&) {}), "");
  EXPECT_EQ(difference([](auto& l) { l.consistency = Consistency::bounded(3); }),
            "consistency sync and bounded(3)");
  EXPECT_EQ(difference([](auto& l) { l.two_phases = true; }),
            "updates in one phase and in two phases");
  EXPECT_EQ(difference([](auto& l) { l.range_bytes *= 2; }), "ranges of 49152 and 98304 bytes");
  EXPECT_EQ(difference([](auto& l) { l.dense.size *= 2; }), "45056 and 90112 dense elements");
  EXPECT_EQ(difference([](auto& l) { l.dense.optimizer.name = "lion"; }),
            "optimizer adamw and lion");
  EXPECT_EQ(difference([](auto& l) { l.dense.optimizer.beta2 = 0.5; }),
            "options of optimizer adamw: beta2 the method's own and 0.5");
  EXPECT_EQ(difference([](auto& l) { l.dense.optimizer.state = "8bit"; }),
            "options of optimizer adamw: state f32 and 8bit");
  EXPECT_EQ(difference([](auto& l) { l.dense.parameters.pop_back(); }), "3 and 2 dense parameters");
  EXPECT_THAT(difference([](auto& l) { l.dense.parameters[1].entry.name = "other"; }),
              HasSubstr("dense parameter 'matrix' of 5000 elements at 8256 and 'other'"));
  EXPECT_THAT(difference([](auto& l) { l.dense.parameters[2].entry.offset += 64; }),
              HasSubstr("'bias' of 777 elements at 32896 and 'bias' of 777 at 32960"));
  EXPECT_THAT(difference([](auto& l) { l.dense.parameters[2].entry.count = 700; }),
              HasSubstr("'bias' of 777 elements at 32896 and 'bias' of 700"));
  EXPECT_EQ(difference([](auto& l) { l.dense.parameters[0].decays = false; }),
            "whether dense parameter 'embedding' decays: true and false");
  EXPECT_EQ(difference([](auto& l) { l.dense.parameters[1].hidden_matrix = true; }),
            "whether dense parameter 'matrix' is a hidden matrix: false and true");
  EXPECT_EQ(difference([](auto& l) { l.sparse.tables.pop_back(); }), "2 and 1 sparse tables");
  EXPECT_EQ(difference([](auto& l) { l.sparse.tables[1].width = 9; }),
            "sparse table 'items' of width 8 and 'items' of width 9");
  EXPECT_EQ(difference([](auto& l) { l.sparse.tables[1].init = "normal"; }),
            "first values of sparse table 'items': uniform by 0.25 and normal by 0.25");
  EXPECT_EQ(difference([](auto& l) { l.sparse.tables[0].init_scale = 1; }),
            "first values of sparse table 'users': uniform by 0.5 and uniform by 1");
  EXPECT_EQ(difference([](auto& l) { l.sparse.tables[0].optimizer.name = "adam"; }),
            "optimizer of sparse table 'users' sgd and adam");
  EXPECT_EQ(difference([](auto& l) { l.sparse.tables[0].optimizer.momentum = 0; }),
            "options of optimizer of sparse table 'users' sgd: momentum the method's own and 0");
  EXPECT_EQ(difference([](auto& l) { l.sparse.slices = 4; }), "tables in 3 and 4 slices");
  EXPECT_EQ(difference([](auto& l) { l.sparse.seed = 5; }), "seed of tables 17 and 5");
  EXPECT_EQ(difference([](auto& l) { l.first_step = 5; }), "first step 0 and 5");
  EXPECT_EQ(difference([](auto& l) { l.settings = "x"; }), "settings '' and 'x'");
}

// Whatever differs, something is said, and nothing where nothing does.
RC_GTEST_PROP(JobLayouts, DifferWhereTheirBytesDo, ()) {
  const auto ours = *arbitrary_struct<JobLayout>();
  JobLayout theirs = ours;
  const auto other = *arbitrary_struct<JobLayout>();
  // One field of the other's, inner ones too.
  const std::vector<std::function<void()>> fields{
      [&] { theirs.consistency = other.consistency; },
      [&] { theirs.two_phases = other.two_phases; },
      [&] { theirs.backups = other.backups; },
      [&] { theirs.range_bytes = other.range_bytes; },
      [&] { theirs.dense.size = other.dense.size; },
      [&] { theirs.dense.optimizer = other.dense.optimizer; },
      [&] { theirs.dense.parameters = other.dense.parameters; },
      [&] { theirs.sparse.tables = other.sparse.tables; },
      [&] { theirs.sparse.slices = other.sparse.slices; },
      [&] { theirs.sparse.seed = other.sparse.seed; },
      [&] { theirs.first_step = other.first_step; },
      [&] { theirs.settings = other.settings; },
  };
  (*rc::gen::elementOf(fields))();
  RC_ASSERT(layout_difference(ours, theirs).empty() == (ours.encode() == theirs.encode()));
}

}  // namespace
}  // namespace trireme::ps
