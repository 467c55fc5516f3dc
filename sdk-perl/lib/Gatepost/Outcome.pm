package Gatepost::Outcome;

# From what a qpsmtpd hook returned, logged and changed to the entry of a `result`.
#
# A return code other than DECLINED is the verdict, whatever was logged. With DECLINED (or something that is no return
# code) the verdict is `declined`, said aloud where a logged `fail` would otherwise be taken for a refusal: a qpsmtpd
# plugin decides by its return code alone.

use strict;
use warnings;

use Gatepost::Changes;
use Gatepost::Log;
use Gatepost::Schema;
use Qpsmtpd::Constants;

# The code of the reply, where the plugin's own words do not say it; taken by the next entry.
our $code;

my %has_values = map { $_ => 1 }
    qw(config received_line mail_pre rcpt_pre helo_parse ehlo_parse mail_parse rcpt_parse);

sub entry {
    my ($turn, $qp, $message, $rc, $texts) = @_;
    my $hook = $message->{hook};
    my %entry = (plugin => $turn->{name});
    if (defined(my $own = $code)) {
        $entry{code} = $own;
        undef $code;
    }
    my $verdict = defined $rc ? Qpsmtpd::Constants::verdict($rc) : undef;
    if (!$verdict) {
        my $where = $turn->{where} // '';
        Gatepost::Log::line($turn->{name}, LOGERROR,
            defined $rc ? "returned \"$rc\" in $hook, which is no return code; taken as DECLINED$where"
                        : "returned undef in $hook; taken as DECLINED$where");
        $verdict = 'declined';
    }
    _take(\%entry);
    if ($verdict eq 'declined') {
        $entry{verdict} = 'declined' if ($entry{disposition} // '') =~ /\A(?:fail|error)\z/;
        return \%entry;
    }

    $entry{verdict} = $verdict;
    if ($hook eq 'queue' && defined(my $success = Qpsmtpd::Constants::success($rc))) { $entry{values} = [$success] }
    my @lines = map { split /\r?\n/ } grep { defined && !ref } @$texts;
    my $is_file = $hook eq 'user_config' && defined $message->{args}{name};
    if (($has_values{$hook} || $is_file) && $verdict eq 'ok') {
        # Settings are an answer to another question.
        if ($is_file && ref $texts->[0]) {
            $entry{verdict} = 'declined';
            return \%entry;
        }
        $entry{values} = $hook eq 'received_line' ? _received(@lines) : $is_file ? \@lines : [grep { defined } @$texts];
        return \%entry;
    }
    if ($hook eq 'user_config' && $verdict eq 'ok') {
        my ($settings, @values) = @$texts;
        # qpsmtpd's plugins of this name answer with the lines of a file, which are no settings.
        if (ref $settings ne 'HASH') {
            $entry{verdict} = 'declined';
            return \%entry;
        }
        $entry{settings} = $settings;
        $entry{values} = [grep { defined } @values];
        return \%entry;
    }
    my $response = $qp->take_response;
    if ($response && $verdict eq 'done') {
        $entry{code}  = $response->{code};
        $entry{reply} = $response->{reply} if @{$response->{reply}};
    }
    elsif (@lines) { _reply(\%entry, @lines) }
    return \%entry;
}

# Nothing to say.
sub quiet {
    my $name = shift;
    return {plugin => $name, _bytes => $Gatepost::Schema::RESULT->({plugin => $name})};
}

# What holds for one recipient, from what a hook would return for it. Dies where that has no return code.
sub of_recipient {
    my ($address, $rc, @texts) = @_;
    my $verdict = defined $rc ? Qpsmtpd::Constants::verdict($rc) : undef;
    die 'recipient_verdict: ' . (defined $rc ? "\"$rc\"" : 'undef') . " is no return code\n" unless $verdict;
    my %entry = (address => $address, verdict => $verdict);
    my @lines = map { split /\r?\n/ } grep { defined && !ref } @texts;
    _reply(\%entry, @lines) if @lines;
    return \%entry;
}

sub _reply {
    my ($entry, @lines) = @_;
    $entry->{reply} = \@lines;
    $entry->{message} //= join ' ', @lines;
    my ($enhanced) = $lines[-1] =~ /\(#([245]\.[0-9]{1,3}\.[0-9]{1,3})\)\z/;
    my $class = $entry->{verdict} =~ /soft/ ? 4 : $entry->{verdict} =~ /deny/ ? 5 : 2;
    $entry->{enhanced} = $enhanced if defined $enhanced && $enhanced =~ /\A$class/;
    return;
}

# No verdict: what a failure of the plugin costs is on_error's business. It goes for all recipients, whatever was said of some.
sub failure {
    my ($turn, $reason) = @_;
    my %entry = (plugin => $turn->{name});
    _take(\%entry);
    delete $entry{recipients};
    @entry{qw(disposition message)} = ('error', $reason);
    return \%entry;
}

sub _take {
    my $entry = shift;
    if (my $held = $Gatepost::Log::held) {
        $entry->{disposition} = $held->{disposition};
        $entry->{message} = $held->{message} if $held->{message} ne '';
        undef $Gatepost::Log::held;
    }
    if (@$Gatepost::Changes::list) {
        my ($changes, $recipients, $delay) = Gatepost::Changes::take();
        $entry->{changes} = $changes if @$changes;
        $entry->{recipients} = $recipients if @$recipients;
        $entry->{delay_ms} = $delay if $delay;
    }
    return;
}

# qpsmtpd's plugins give the value of the Received field, the protocol wants the whole of it.
sub _received {
    my ($first, @rest) = @_;
    return [] unless defined $first;
    $first = "Received: $first" unless $first =~ /\AReceived:/i;
    return [$first, map { /\A[ \t]/ ? $_ : "\t$_" } @rest];
}

1;
