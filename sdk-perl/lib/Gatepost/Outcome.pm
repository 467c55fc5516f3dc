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
use Qpsmtpd::Constants;

my %has_values = (config => 1, received_line => 1, mail_pre => 1, rcpt_pre => 1);

sub entry {
    my ($turn, $qp, $hook, $rc, $texts) = @_;
    my %entry = (plugin => $turn->{name});
    my $verdict = defined $rc ? Qpsmtpd::Constants::verdict($rc) : undef;
    if (!$verdict) {
        Gatepost::Log::line($turn->{name}, LOGERROR,
            defined $rc ? "returned \"$rc\" in $hook, which is no return code; taken as DECLINED"
                        : "returned undef in $hook; taken as DECLINED");
        $verdict = 'declined';
    }
    _take(\%entry);
    if ($verdict eq 'declined') {
        $entry{verdict} = 'declined' if ($entry{disposition} // '') =~ /\A(?:fail|error)\z/;
        return \%entry;
    }

    $entry{verdict} = $verdict;
    my @lines = map { split /\r?\n/ } grep { defined && !ref } @$texts;
    if ($has_values{$hook} && $verdict eq 'ok') {
        $entry{values} = $hook eq 'received_line' ? _received(@lines) : [grep { defined } @$texts];
        return \%entry;
    }
    my $response = $qp->take_response;
    if ($response && $verdict eq 'done') {
        $entry{code}  = $response->{code};
        $entry{reply} = $response->{reply} if @{$response->{reply}};
    }
    elsif (@lines) {
        $entry{reply} = \@lines;
        $entry{message} //= join ' ', @lines;
        my ($enhanced) = $lines[-1] =~ /\(#([245]\.[0-9]{1,3}\.[0-9]{1,3})\)\z/;
        my $class = $verdict =~ /soft/ ? 4 : $verdict =~ /deny/ ? 5 : 2;
        $entry{enhanced} = $enhanced if defined $enhanced && $enhanced =~ /\A$class/;
    }
    return \%entry;
}

# No verdict: what a failure of the plugin costs is on_error's business.
sub failure {
    my ($turn, $reason) = @_;
    my %entry = (plugin => $turn->{name});
    _take(\%entry);
    @entry{qw(disposition message)} = ('error', "died: $reason");
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
        $entry->{changes} = $Gatepost::Changes::list;
        $Gatepost::Changes::list = [];
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
