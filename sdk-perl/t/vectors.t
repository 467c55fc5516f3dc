use strict;
use warnings;

use FindBin;
use B ();
use JSON::PP ();
use Test::More;
use Gatepost::Codec;
use Gatepost::MessagePack qw(pack_bytes pack_integer pack_boolean);
use Gatepost::Schema;

# The test vectors that every SDK passes: the good ones with both codecs, the broken ones with the built-in codec, which
# is strict, and with the fast one those that a plugin process must refuse.

my $vectors = "$FindBin::RealBin/../../protocol/vectors";
my $frames   = read_json("$vectors/frames.json");
my $messages = read_json("$vectors/messages.json");

sub read_json {
    open my $handle, '<', $_[0] or die "$_[0]: $!";
    local $/;
    return JSON::PP->new->utf8->decode(<$handle>);
}

# JSON's value with its types for the encoder: Perl alone would forget which numbers were numbers.
sub typed {
    my $value = shift;
    if (ref $value eq 'HASH') {
        return Gatepost::Schema::encoded(pack_bytes(pack 'H*', $value->{'$bytes'})) if exists $value->{'$bytes'};
        return {map { $_ => typed($value->{$_}) } keys %$value};
    }
    return [map { typed($_) } @$value] if ref $value eq 'ARRAY';
    return $value if !defined $value || ref $value;
    my $is_number = B::svref_2object(\$value)->FLAGS & (B::SVf_IOK | B::SVf_NOK);
    return $is_number ? Gatepost::Schema::encoded(pack_integer($value)) : $value;
}

# The same value as the decoders give it: byte strings, booleans as 1 and 0.
sub plain {
    my $value = shift;
    if (ref $value eq 'HASH') {
        return pack 'H*', $value->{'$bytes'} if exists $value->{'$bytes'};
        return {map { my $key = $_; utf8::encode($key); $key => plain($value->{$_}) } keys %$value};
    }
    return [map { plain($_) } @$value] if ref $value eq 'ARRAY';
    return $value ? 1 : 0 if ref $value;
    utf8::encode($value) if defined $value;
    return $value;
}

# docs/protocol.md, section 2.
my $must_refuse = qr/\A(?:empty|too_long|truncated|trailing|not_a_map|malformed)\z/;

my $encode = Gatepost::Schema::any();

my @codecs = (['builtin' => \&Gatepost::MessagePack::decode]);
my ($fast, $decode_fast) = Gatepost::Codec::decoder('');
push @codecs, [$fast => $decode_fast] if $fast ne 'builtin';

for my $codec (@codecs) {
    my ($name, $decode) = @$codec;
    subtest "$name: frames" => sub {
        for my $case (@{$frames->{frames}}, @$messages) {
            my $frame = pack 'H*', $case->{hex};
            is unpack('N', $frame), length($frame) - 4, "$case->{name}: length";
            my $want = plain($case->{value});
            is_deeply $decode->(substr $frame, 4), $want, "$case->{name}: decoded";
            is_deeply $decode->($encode->(typed($case->{value}))), $want, "$case->{name}: encoded and decoded";
        }
    };
    subtest "$name: broken frames" => sub {
        for my $case (grep { $name eq 'builtin' || $_->{error} =~ $must_refuse } @{$frames->{broken}}) {
            my $error = refusal($decode, pack 'H*', $case->{hex});
            is $error, $case->{error}, $case->{name};
        }
    };
    subtest "$name: frames cut off" => sub {
        for my $case (@{$frames->{frames}}, @$messages) {
            my $whole = substr pack('H*', $case->{hex}), 4;
            my @wrong = grep { !defined $_->[1] || $_->[1] !~ /\Atruncated: / }
                map { [$_, eval { $decode->(substr $whole, 0, $_); 1 } ? 'accepted' : $@] } 1 .. length($whole) - 1;
            is_deeply \@wrong, [], $case->{name};
        }
    };
    next if $name eq 'builtin';
    subtest "$name: random bytes" => sub {
        srand 7;
        my @seeds = map { substr pack('H*', $_->{hex}), 4 } @{$frames->{frames}}, @$messages;
        my %seen;
        for (1 .. 5000) {
            my $bytes = $seeds[rand @seeds];
            substr $bytes, rand length $bytes, 1, chr rand 256 for 0 .. rand 3;
            my $want = eval { $encode->(Gatepost::MessagePack::decode($bytes)) };
            my ($code) = defined $want ? 'good' : $@ =~ /\A([a-z_]+): /;
            next if !defined $want && $code !~ $must_refuse;
            ++$seen{$code};
            my $got = eval { $encode->($decode->($bytes)) };
            is $got, $want, "$code: " . unpack 'H*', $bytes if ($got // 'refused') ne ($want // 'refused');
        }
        ok $seen{$_}, "both codecs agree on what is $_" for qw(good truncated trailing not_a_map malformed);
    };
    subtest "$name: what XS gives in forms of its own" => sub {
        my %values = (
            true => "\xc3", false => "\xc2", 'two of them' => "\x92\xc2\xc3", 'in a map' => "\x82\xa1b\xc3\xa1c\x01",
            Latin => "\xa3J\xc3\xb6", Greek => "\xa2\xce\xb1", emoji => "\xa4\xf0\x9f\x90\xaa", 'beyond Unicode' => "\xa5\xf8\x88\x80\x80\x80",
            bytes => "\xc4\x02\xc3\xb6", 'a key' => "\x81\xa2\xc3\xb6\x81\xa2\xce\xb1\xc3", Latin1 => "\xa1\xf6", 'a number' => "\xcd\xc3\xb6",
        );
        for my $relay_client ("\xc2", "\xc3", "\xa1x") {
            for my $name (sort keys %values) {
                my $bytes = "\x82\xaaconnection\x82\xacrelay_client$relay_client\xa5karma\x07\xa1v$values{$name}";
                my ($got, $want) = map { $_->($bytes) } $decode, \&Gatepost::MessagePack::decode;
                is_deeply $got, $want, $name;
                is $encode->($got), $encode->($want), "$name, to the byte";
            }
        }
    };
}

# Through a channel, which is what judges the length.
sub refusal {
    my ($decode, $bytes) = @_;
    require Gatepost::Channel;
    pipe my $read, my $write or die "pipe: $!";
    open my $null, '>', '/dev/null' or die "null: $!";
    my $channel = Gatepost::Channel->new($read, $null);
    $channel->{decode} = $decode;
    syswrite $write, $bytes;
    close $write;
    my $message = eval { $channel->next_frame };
    return $@ =~ /\A([a-z_]+): / ? $1 : "accepted";
}

subtest 'what a plugin sends is as the schema says' => sub {
    my %schema = map { $_ => Gatepost::Schema->can("message_$_") } qw(hello ready init_error call log error);
    for my $case (grep { $_->{from} eq 'plugin' } @$messages) {
        my $value = $case->{value};
        my $want = plain($value);
        my $frame;
        if ($value->{kind} eq 'result') {
            my ($results, $then) = map { $_ && Gatepost::Schema::results(map { $Gatepost::Schema::RESULT->(unwrap($_)) } @$_) } @$value{qw(results then)};
            $frame = Gatepost::Schema::message_result($value->{id}, $results, $then);
        }
        else {
            my $schema = $schema{$value->{kind}} or next;
            $frame = $schema->(unwrap($value));
        }
        my $got = Gatepost::MessagePack::decode(substr $frame, 4);
        is_deeply without_nil($got), without_nil($want), $case->{name};
    }
};

sub unwrap {
    my $value = shift;
    return pack 'H*', $value->{'$bytes'} if ref $value eq 'HASH' && exists $value->{'$bytes'};
    return {map { $_ => unwrap($value->{$_}) } keys %$value} if ref $value eq 'HASH';
    return [map { unwrap($_) } @$value] if ref $value eq 'ARRAY';
    return $value;
}

sub without_nil {
    my $value = shift;
    return {map { $_ => without_nil($value->{$_}) } grep { defined $value->{$_} } keys %$value} if ref $value eq 'HASH';
    return [map { without_nil($_) } @$value] if ref $value eq 'ARRAY';
    return $value;
}

subtest 'text is text' => sub {
    is unpack('H*', Gatepost::MessagePack::pack_text('007')), 'a3303037';
    my $number = 7;
    is unpack('H*', Gatepost::MessagePack::pack_text($number)), 'a137', 'a number in a text field';
    my $text = '42';
    { no warnings 'void'; $text + 0; }
    is unpack('H*', Gatepost::MessagePack::pack_integer($text)), '2a', 'a text in an integer field';
    my ($bytes, $characters, $latin) = ("J\xc3\xb6rg", "J\x{f6}rg", "J\xf6rg");
    utf8::upgrade($characters);
    is unpack('H*', Gatepost::MessagePack::pack_text($_)), 'a54ac3b67267', 'UTF-8, whatever it was' for $bytes, $characters, $latin;
    is unpack('H*', Gatepost::MessagePack::pack_text("\x{20ac}")), 'a3e282ac';
    is unpack('H*', pack_bytes("\xff\x00")), 'c402ff00';
    is unpack('H*', pack_boolean($_)), $_ ? 'c3' : 'c2' for 0, 1;
    for my $n (0, 127, 128, 255, 256, 65535, 65536, 4294967295, 4294967296, 9007199254740992) {
        for my $signed ($n, -$n) {
            is Gatepost::MessagePack::decode("\x81\xa1n" . pack_integer($signed))->{n}, $signed, "the integer $signed";
        }
    }
    ok !eval { pack_integer(2**53 + 2); 1 }, 'beyond 2**53';
};

done_testing;
